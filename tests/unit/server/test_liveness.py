from __future__ import annotations

import threading

import pytest

from latentserve_server.liveness import LivenessMonitor

LIMIT_S = 2.0


class Bench:
    """A monitor of one counter, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.count: int | None = 0
        self.silent: list[tuple[str, float]] = []
        self.monitor = LivenessMonitor(
            {"loop": lambda: self.count},
            limit_s=LIMIT_S,
            on_silent=lambda name, silent_s: self.silent.append((name, silent_s)),
            clock=lambda: self.now_s,
        )

    def check_every(self, interval_s: float, times: int) -> None:
        for _ in range(times):
            self.now_s += interval_s
            self.monitor.check()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_counter_that_does_not_change_is_reported_once(bench: Bench) -> None:
    bench.check_every(0.5, 4)
    assert bench.silent == []
    bench.check_every(0.5, 6)
    assert bench.silent == [("loop", LIMIT_S)]


def test_a_counter_that_changes_is_not_reported(bench: Bench) -> None:
    for count in range(20):
        bench.count = count
        bench.check_every(0.5, 1)
    assert bench.silent == []


def test_a_thread_that_has_ended_is_not_reported(bench: Bench) -> None:
    bench.count = None
    bench.check_every(0.5, 20)
    assert bench.silent == []


def test_after_a_pause_of_the_process_the_full_limit_applies_again(bench: Bench) -> None:
    bench.check_every(0.5, 3)
    bench.check_every(60.0, 1)
    bench.check_every(0.5, 3)
    assert bench.silent == []
    bench.check_every(0.5, 1)
    assert len(bench.silent) == 1


def test_a_second_silence_is_reported_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.check_every(0.5, 6)
    bench.count = 1
    bench.check_every(0.5, 6)
    assert len(bench.silent) == 2
    assert "the loop shows signs of life again" in caplog.text


def test_stop_ends_the_thread(bench: Bench) -> None:
    bench.monitor.start()
    bench.monitor.stop()
    assert "liveness" not in {thread.name for thread in threading.enumerate()}
