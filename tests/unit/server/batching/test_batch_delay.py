"""Batches with a delay: when they are due, and the events that end the delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from batch_bench import Bench, Clock, FakeEngine
from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.request import Completion, Rows

DELAY_S = 0.005
WAIT_S = 20.0


def bench_with_delay(**options: int) -> Bench:
    return Bench(max_delay_s=DELAY_S, **options)


def due_in_s(bench: Bench) -> float:
    due_ns = bench.batcher.next_due_ns()
    assert due_ns is not None
    return (due_ns - bench.clock.ns) / 1e9


def test_without_a_delay_every_batch_is_due() -> None:
    bench = Bench()
    assert bench.batcher.next_due_ns() is None
    bench.submit(1.0)
    assert due_in_s(bench) < 0
    assert bench.runs_next()


def test_a_batch_that_is_not_full_waits_from_its_first_request() -> None:
    bench = bench_with_delay()
    assert bench.batcher.next_due_ns() is None
    bench.submit(1.0)
    assert due_in_s(bench) == pytest.approx(DELAY_S)
    bench.clock.pass_s(0.004)
    bench.submit(2.0)
    assert due_in_s(bench) == pytest.approx(0.001)
    assert not bench.runs_next()
    bench.clock.pass_s(0.0009)
    assert not bench.runs_next()
    bench.clock.pass_s(0.0001)
    assert bench.runs_next()
    assert bench.engine.batches == [("decode", [1.0, 2.0])]


def test_a_full_batch_is_due_at_once_and_the_remaining_rows_wait() -> None:
    bench = bench_with_delay(max_batch_rows=4)
    bench.submit(1.0, 2.0, 3.0)
    assert not bench.runs_next()
    bench.clock.pass_s(0.001)
    bench.submit(4.0, 5.0)
    assert due_in_s(bench) < 0
    assert bench.runs_next()
    assert due_in_s(bench) == pytest.approx(DELAY_S)  # the remaining row arrived later
    assert not bench.runs_next()
    bench.clock.pass_s(DELAY_S)
    assert bench.runs_next()
    assert [rows for _, rows in bench.engine.batches] == [[1.0, 2.0, 3.0, 4.0], [5.0]]


def test_each_operation_has_its_own_delay_and_does_not_delay_a_full_batch() -> None:
    bench = bench_with_delay(max_batch_rows=2)
    bench.submit(1.0, operation="encode")
    bench.clock.pass_s(0.001)
    bench.submit(2.0, 3.0, operation="decode")
    assert bench.runs_next()
    assert not bench.runs_next()
    assert due_in_s(bench) == pytest.approx(0.004)
    bench.clock.pass_s(0.004)
    assert bench.runs_next()
    assert bench.engine.batches == [("decode", [2.0, 3.0]), ("encode", [1.0])]


def test_of_two_due_batches_the_older_one_runs_first() -> None:
    bench = bench_with_delay(max_batch_rows=2)
    bench.submit(1.0, operation="encode")
    bench.clock.pass_s(0.001)
    bench.submit(2.0, 3.0, operation="decode")
    bench.clock.pass_s(0.004)
    bench.run_all()
    assert [operation for operation, _ in bench.engine.batches] == ["encode", "decode"]


def test_a_cancelled_request_no_longer_determines_the_delay() -> None:
    bench = bench_with_delay()
    _, first = bench.submit(1.0)
    bench.clock.pass_s(0.003)
    bench.submit(2.0)
    assert due_in_s(bench) == pytest.approx(0.002)
    first.cancel()
    assert due_in_s(bench) == pytest.approx(DELAY_S)


def test_a_deadline_within_the_delay_makes_the_batch_due_at_once() -> None:
    """Without a measurement, the duration of the batch is unknown."""
    bench = bench_with_delay()
    bench.submit(1.0)
    number, _ = bench.submit(2.0, deadline=bench.clock.s + 0.004)
    assert due_in_s(bench) <= 0
    assert bench.runs_next()
    assert bench.values(number) == [4.0]


def test_with_a_deadline_the_batch_is_due_twice_its_duration_before_it() -> None:
    bench = bench_with_delay()
    bench.engine.seconds = lambda operation, rows: 0.002
    bench.submit(*[1.0] * 8)
    bench.run_all()
    bench.submit(1.0)
    assert due_in_s(bench) == pytest.approx(DELAY_S)
    bench.submit(2.0, deadline=bench.clock.s + 0.0075)
    assert due_in_s(bench) == pytest.approx(0.0035)
    bench.submit(3.0, deadline=bench.clock.s + 0.003)
    assert due_in_s(bench) <= 0


def test_a_late_deadline_does_not_change_the_delay() -> None:
    bench = bench_with_delay()
    bench.submit(1.0, deadline=bench.clock.s + 10)
    assert due_in_s(bench) == pytest.approx(DELAY_S)


def test_after_shutdown_every_batch_is_due_at_once() -> None:
    bench = bench_with_delay()
    number, _ = bench.submit(1.0)
    bench.batcher.shutdown()
    assert due_in_s(bench) <= 0
    assert bench.runs_next()
    assert bench.values(number) == [2.0]


# --- with the real thread and the real clock --------------------------------------------------


class Threaded:
    def __init__(self, max_delay_s: float) -> None:
        self.hook_calls: list[Batcher] = []
        self.engine = FakeEngine(Clock())
        self.clock_reads = threading.Semaphore(0)
        self.batcher = Batcher(
            self.engine,
            name="delayed",
            max_batch_rows=4,
            queue_rows=64,
            max_delay_s=max_delay_s,
            clock_ns=self._read_clock,
            inline_hook=self._accept,
        )
        self.batcher.start()
        self.completed = threading.Semaphore(0)

    def _read_clock(self) -> int:
        if threading.current_thread().name == "engine-delayed":
            self.clock_reads.release()
        return time.monotonic_ns()

    def wait_until_asleep(self) -> None:
        """Wait until the thread has read the clock twice: for a batch, and for its sleep."""
        for _ in range(2):
            assert self.clock_reads.acquire(timeout=WAIT_S)

    def _accept(self, batcher: Batcher) -> bool:
        self.hook_calls.append(batcher)
        return True

    def submit(self, rows: int) -> None:
        array = np.ones((rows, 1), dtype=np.float32)
        self.batcher.submit("decode", (Rows(array),), None, self._done)

    def _done(self, completion: Completion) -> None:
        assert completion.error is None
        self.completed.release()

    def wait(self, requests: int) -> None:
        for _ in range(requests):
            assert self.completed.acquire(timeout=WAIT_S)


@pytest.fixture
def patient() -> Iterator[Threaded]:
    """A batcher with a delay of one hour."""
    threaded = Threaded(3600.0)
    yield threaded
    threaded.batcher.close(timeout_s=WAIT_S)


def test_with_a_delay_the_batchers_own_thread_runs_the_batches() -> None:
    threaded = Threaded(0.01)
    threaded.submit(1)
    threaded.wait(1)
    assert threaded.hook_calls == []
    threaded.batcher.close(timeout_s=WAIT_S)


def test_a_request_that_fills_the_batch_wakes_the_thread(patient: Threaded) -> None:
    patient.submit(1)
    patient.wait_until_asleep()
    patient.submit(2)
    assert not patient.completed.acquire(blocking=False)
    patient.submit(1)
    patient.wait(3)
    assert [len(rows) for _, rows in patient.engine.batches] == [4]


def test_close_wakes_the_thread(patient: Threaded) -> None:
    patient.submit(1)
    patient.wait_until_asleep()
    patient.batcher.close(timeout_s=WAIT_S)
    patient.wait(1)
