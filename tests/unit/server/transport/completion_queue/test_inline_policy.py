from __future__ import annotations

from collections.abc import Iterator

import pytest

from latentserve_server.transport.completion_queue.inline_policy import (
    InlinePolicy,
    Limits,
    time_python,
)

UNIT_S = 0.0001


class Machine:
    """Fake machine with a settable duration of a trial and a settable clock."""

    def __init__(self) -> None:
        self.unit_s = UNIT_S
        self.s = 0.0
        self.trials = 0

    def trial(self) -> float:
        self.trials += 1
        return self.unit_s

    def clock(self) -> float:
        return self.s


@pytest.fixture
def machine() -> Machine:
    return Machine()


def measured(machine: Machine) -> InlinePolicy:
    return InlinePolicy(machine.trial, machine.clock)


def unit_s(policy: InlinePolicy) -> float:
    return policy.limits.max_s / Limits.of(1.0).max_s


@pytest.mark.parametrize(
    ("seconds", "calls", "in_flight", "short"),
    [
        (0.00024, 1, 9, True),
        (0.00025, 1, 9, False),
        (0.00064, 10, 99, True),
        (0.00066, 10, 99, False),
        (0.0039, 99, 999, True),
        (0.0041, 99, 999, False),
        (0.0039, 1, 1, True),
        (0.0041, 1, 1, False),
        (0.0, 0, 0, True),
    ],
)
def test_the_limit_grows_with_the_calls_up_to_a_maximum(
    machine: Machine, seconds: float, calls: int, in_flight: int, short: bool
) -> None:
    assert measured(machine).allows(seconds, calls, in_flight) is short


def test_the_first_limits_use_the_shortest_trial() -> None:
    trials: Iterator[float] = iter([3 * UNIT_S, UNIT_S, *[2 * UNIT_S] * 100])
    policy = InlinePolicy(lambda: next(trials), lambda: 0.0)
    assert policy.limits == Limits.of(UNIT_S)


def test_the_limits_follow_the_machines_speed(machine: Machine) -> None:
    policy = measured(machine)
    for speed in (2.0, 0.5):
        machine.unit_s = speed * UNIT_S
        for _ in range(200):
            machine.s += 0.3
            policy.update()
        assert unit_s(policy) == pytest.approx(speed * UNIT_S, rel=0.01)


def test_a_trial_runs_only_a_few_times_per_second(machine: Machine) -> None:
    policy = measured(machine)
    at_start = machine.trials
    for _ in range(1000):
        machine.s += 0.001
        policy.update()
    assert 2 <= machine.trials - at_start <= 4


def test_a_single_slow_trial_has_little_weight(machine: Machine) -> None:
    policy = measured(machine)
    machine.unit_s = 1.0
    machine.s += 1.0
    policy.update()
    assert unit_s(policy) == pytest.approx(1.05 * UNIT_S)


def test_the_trial_takes_a_plausible_time() -> None:
    assert 1e-6 < min(time_python() for _ in range(5)) < 0.1
