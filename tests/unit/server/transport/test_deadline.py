"""Tests of deadlines while the wall clock is set."""

from __future__ import annotations

import pytest

from latentserve_server.transport.deadline import WallClock


class Clocks:
    def __init__(self) -> None:
        self.day = 1_800_000_000.0
        self.monotonic = 500.0

    def pass_s(self, seconds: float) -> None:
        self.day += seconds
        self.monotonic += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def clock(clocks: Clocks) -> WallClock:
    return WallClock(lambda: clocks.day, lambda: clocks.monotonic)


def test_a_wall_clock_deadline_becomes_a_monotonic_one(clocks: Clocks, clock: WallClock) -> None:
    assert clock.deadline(clocks.day + 5) == 505
    clocks.pass_s(86_400)
    assert clock.deadline(clocks.day + 5) == pytest.approx(86_905)
    assert clock.deadline_in(7) == pytest.approx(86_907)
    assert clock.deadline(clocks.day - 5) == pytest.approx(86_895)  # a past deadline


def test_a_deadline_centuries_away_is_none(clocks: Clocks, clock: WallClock) -> None:
    assert clock.deadline(clocks.day + 9e9) is None
    assert clock.deadline_in(None) is None


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 1.0])
def test_a_clock_change_after_the_read_gives_none_once(
    clocks: Clocks, clock: WallClock, jump_s: float
) -> None:
    moment = clocks.day + 5
    clocks.day += jump_s
    assert clock.deadline(moment) is None
    assert clock.deadline(clocks.day + 5) == pytest.approx(505)


def test_a_slewed_clock_keeps_its_deadlines(clocks: Clocks, clock: WallClock) -> None:
    """NTP slews a clock by at most half a millisecond per second."""
    for _ in range(1000):
        clocks.pass_s(1)
        clocks.day += 5e-4
        assert clock.deadline(clocks.day + 5) is not None
