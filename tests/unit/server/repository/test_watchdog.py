"""Watchdog with a manual clock and an engine that blocks until it is released."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.request import Completion, QueuedRequest, Rows
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State
from latentserve_server.repository.watchdog import Watchdog

Floats = NDArray[np.float32]
LIMIT_S = 30.0
WAIT_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def __call__(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


class HeldEngine:
    """Blocks each batch until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.released = threading.Semaphore(0)
        self.fails = False

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        self.begun.release()
        assert self.released.acquire(timeout=WAIT_S)
        if self.fails:
            raise RuntimeError("failed")
        return inputs


class Bench:
    """One model on a blocking engine with a real thread, and its watchdog."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = HeldEngine()
        self.batcher = Batcher(
            self.engine, name="slow/1", max_batch_rows=4, queue_rows=64, clock_ns=self.clock
        )
        self.batcher.start()
        self.done = threading.Semaphore(0)
        self.versions = [
            self.model_version("slow", 1, self.batcher),
            ModelVersion("bad", 1, State.REFUSED, "no"),
        ]
        self.watchdog = Watchdog(lambda: self.versions, limit_s=LIMIT_S)

    @staticmethod
    def model_version(name: str, version: int, batcher: Batcher) -> ModelVersion:
        manifest: Any = None  # the watchdog does not use it
        model = LoadedModel(manifest, "CPUExecutionProvider", batcher, None)
        return ModelVersion(name, version, State.READY, model=model)

    def submit(self, rows: int, operation: str = "decode") -> QueuedRequest:
        array = np.zeros((rows, 1), dtype=np.float32)
        return self.batcher.submit(operation, (Rows(array),), None, self._finished)

    def _finished(self, completion: Completion) -> None:
        self.done.release()

    def begun(self) -> None:
        assert self.engine.begun.acquire(timeout=WAIT_S)

    def finish(self) -> None:
        """Release the running batch, and wait until its request is completed."""
        self.engine.released.release()
        assert self.done.acquire(timeout=WAIT_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for _ in range(20):
        bench.engine.released.release()
    bench.batcher.close(timeout_s=WAIT_S)


def test_an_idle_engine_is_never_stuck(bench: Bench) -> None:
    bench.clock.pass_s(3600)
    assert bench.watchdog.check() == set()
    assert bench.batcher.backlog() is None
    assert not bench.watchdog.is_stuck()


def test_work_after_a_long_idle_time_has_the_full_limit(bench: Bench) -> None:
    bench.clock.pass_s(3600)
    bench.submit(3)
    bench.begun()
    bench.clock.pass_s(LIMIT_S - 1)
    assert bench.watchdog.check() == set()


def test_nothing_finished_for_the_limit_is_stuck_and_finishing_ends_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit(3)
    bench.begun()
    bench.submit(2, "encode")
    bench.clock.pass_s(LIMIT_S)
    assert bench.watchdog.check() == {"slow"}
    assert bench.watchdog.is_stuck()
    assert bench.watchdog.is_stuck("slow")
    assert not bench.watchdog.is_stuck("bad")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    text = record.getMessage()
    assert "slow version 1 is stuck: no batch has finished for 30.0 s, since " in text
    assert "decode of 3 rows is running, 2 rows are queued" in text
    found = vars(record)
    assert (found["model"], found["operation"]) == ("slow:1", "decode")
    assert (found["running_rows"], found["waiting_rows"]) == (3, 2)
    # It is logged once.
    assert bench.watchdog.check() == set()
    assert len(caplog.records) == 1
    bench.finish()
    assert bench.watchdog.check() == {"slow"}
    assert not bench.watchdog.is_stuck()
    assert "slow version 1 is no longer stuck" in caplog.text


def test_after_a_pause_of_the_process_the_engines_get_the_full_limit_again(
    bench: Bench,
) -> None:
    watchdog = Watchdog(lambda: bench.versions, limit_s=LIMIT_S, clock=lambda: bench.clock() / 1e9)

    def awake_for(seconds: int) -> set[str]:
        changed: set[str] = set()
        for _ in range(seconds):
            bench.clock.pass_s(watchdog.interval_s)
            changed ^= watchdog.check()
        return changed

    bench.submit(3)
    bench.begun()
    assert awake_for(5) == set()
    bench.clock.pass_s(600)
    assert awake_for(29) == set()
    assert awake_for(2) == {"slow"}
    bench.clock.pass_s(600)  # what was stuck before the pause still is
    assert awake_for(5) == set()
    assert watchdog.is_stuck("slow")
    bench.finish()
    assert awake_for(1) == {"slow"}


def test_a_check_that_is_slightly_late_is_not_a_pause(bench: Bench) -> None:
    watchdog = Watchdog(lambda: bench.versions, limit_s=LIMIT_S, clock=lambda: bench.clock() / 1e9)
    bench.submit(3)
    bench.begun()
    for _ in range(3):
        bench.clock.pass_s(LIMIT_S / 2 - 1)
        watchdog.check()
    assert watchdog.is_stuck("slow")


def test_a_slow_engine_that_finishes_is_not_stuck(bench: Bench) -> None:
    for _ in range(4):
        bench.submit(4)
    for _ in range(4):
        bench.begun()
        bench.clock.pass_s(LIMIT_S - 1)
        assert bench.watchdog.check() == set()
        bench.finish()


def test_a_batch_that_fails_has_finished(bench: Bench) -> None:
    bench.engine.fails = True
    bench.submit(4)
    bench.submit(4)
    bench.begun()
    bench.clock.pass_s(LIMIT_S - 1)
    bench.finish()
    bench.begun()
    bench.clock.pass_s(LIMIT_S - 1)
    assert bench.watchdog.check() == set()
    bench.clock.pass_s(1)
    assert bench.watchdog.check() == {"slow"}


def test_a_running_batch_is_work_even_if_all_its_requests_were_cancelled(bench: Bench) -> None:
    request = bench.submit(3)
    bench.begun()
    request.cancel()
    bench.clock.pass_s(LIMIT_S)
    assert bench.watchdog.check() == {"slow"}


def test_work_that_no_thread_runs_is_stuck() -> None:
    """As if the engine's thread had died."""
    clock = Clock()
    batcher = Batcher(HeldEngine(), name="x/1", max_batch_rows=4, queue_rows=64, clock_ns=clock)
    watchdog = Watchdog(lambda: [Bench.model_version("x", 1, batcher)], limit_s=LIMIT_S)
    rows = Rows(np.zeros((3, 1), dtype=np.float32))
    request = batcher.submit("decode", (rows,), None, lambda completion: None)
    clock.pass_s(LIMIT_S)
    assert watchdog.check() == {"x"}
    backlog = batcher.backlog()
    assert backlog is not None
    assert (backlog.operation, backlog.running_rows, backlog.waiting_rows) == ("decode", 0, 3)
    request.cancel()
    assert watchdog.check() == {"x"}
    assert not watchdog.is_stuck()


def test_a_reload_that_replaces_the_stuck_engine_ends_the_alarm(bench: Bench) -> None:
    bench.submit(1)
    bench.begun()
    bench.clock.pass_s(LIMIT_S)
    assert bench.watchdog.check() == {"slow"}
    fresh = Batcher(HeldEngine(), name="slow/1", max_batch_rows=4, queue_rows=64)
    bench.versions[0] = Bench.model_version("slow", 1, fresh)
    assert bench.watchdog.check() == {"slow"}
    assert not bench.watchdog.is_stuck()


@pytest.mark.parametrize(("limit_s", "interval_s"), [(0.1, 0.05), (2.0, 0.5), (60.0, 1.0)])
def test_the_interval_depends_on_the_limit(limit_s: float, interval_s: float) -> None:
    assert Watchdog(lambda: (), limit_s=limit_s).interval_s == interval_s
