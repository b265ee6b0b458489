"""Batcher with a fake engine and a manual clock; batches run only when the test calls for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest

from batch_bench import POISON, Bench, Clock, FakeEngine
from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.callbacks import BatcherCallbacks
from latentserve_server.batching.request import Completion, QueuedRequest, Rows
from latentserve_server.errors import DeadlineExceeded, EngineFailure, QueueFull, Unavailable


def test_an_idle_engine_takes_a_single_request_at_once() -> None:
    bench = Bench()
    number, _ = bench.submit(1.0)
    bench.batcher.run_next()
    assert bench.values(number) == [2.0]
    assert bench.engine.batches == [("decode", [1.0])]


def test_queued_requests_are_merged_and_split_again() -> None:
    bench = Bench()
    first, _ = bench.submit(1.0, 2.0)
    second, _ = bench.submit(3.0)
    third, _ = bench.submit(4.0, 5.0)
    bench.batcher.run_next()
    assert bench.engine.batches == [("decode", [1.0, 2.0, 3.0, 4.0, 5.0])]
    assert [bench.values(n) for n in (first, second, third)] == [[2.0, 4.0], [6.0], [8.0, 10.0]]
    (completion,) = bench.completions[second]
    assert completion.batch_rows == 5


def test_operations_are_never_mixed_and_the_longest_waiting_goes_first() -> None:
    bench = Bench()
    bench.submit(1.0, operation="encode")
    bench.clock.ns += 1
    bench.submit(2.0, operation="decode")
    bench.clock.ns += 1
    bench.submit(3.0, operation="encode")
    bench.run_all()
    assert bench.engine.batches == [("encode", [1.0, 3.0]), ("decode", [2.0])]


def test_a_busy_operation_does_not_starve_another() -> None:
    bench = Bench(max_batch_rows=2)
    for value in (1.0, 2.0):
        bench.submit(value, value, operation="decode")
        bench.clock.ns += 1
    bench.submit(9.0, operation="encode")
    bench.clock.ns += 1
    bench.submit(3.0, 3.0, operation="decode")
    bench.run_all()
    assert [operation for operation, _ in bench.engine.batches] == [
        "decode",
        "decode",
        "encode",
        "decode",
    ]


def test_a_request_larger_than_a_batch_runs_in_several_and_is_joined() -> None:
    bench = Bench(max_batch_rows=4)
    small, _ = bench.submit(100.0)
    large, _ = bench.submit(*map(float, range(1, 11)))
    after, _ = bench.submit(200.0)
    bench.run_all()
    assert [len(rows) for _, rows in bench.engine.batches] == [4, 4, 4]
    assert bench.values(large) == [2.0 * value for value in range(1, 11)]
    assert bench.values(small) == [200.0]
    assert bench.values(after) == [400.0]


def test_a_completed_request_releases_its_arrays_and_its_callback() -> None:
    """A transport keeps the request until the reply is written, which may take minutes."""
    bench = Bench()
    number, request = bench.submit(1.0)
    done = request.done
    bench.run_all()
    assert bench.values(number) == [2.0]
    assert not request.inputs
    assert not request.outputs
    assert request.done is not done


def test_a_full_queue_refuses_at_once_and_says_when_to_try_again() -> None:
    bench = Bench(queue_rows=4)
    waiting, _ = bench.submit(1.0, 2.0, 3.0)
    with pytest.raises(QueueFull, match="3 rows wait, the request has 2, the limit is 4") as caught:
        bench.submit(4.0, 5.0)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0
    fits, _ = bench.submit(6.0)
    bench.run_all()
    assert bench.values(waiting) == [2.0, 4.0, 6.0]
    assert bench.values(fits) == [12.0]


def test_rows_are_subtracted_when_dequeued_cancelled_or_expired() -> None:
    bench = Bench(max_batch_rows=2)
    bench.submit(1.0, 2.0, 3.0)
    assert bench.batcher.waiting_rows == 3
    bench.batcher.run_next()
    assert bench.batcher.waiting_rows == 1
    _, request = bench.submit(4.0, 5.0)
    request.cancel()
    assert bench.batcher.waiting_rows == 1
    bench.submit(6.0, deadline=1.5)
    bench.clock.ns = 2_000_000_000
    bench.run_all()
    assert bench.batcher.waiting_rows == 0


@pytest.mark.parametrize("poisoned", range(4))
def test_a_poisoned_row_fails_alone(poisoned: int) -> None:
    bench = Bench()
    for n in range(4):
        bench.submit(POISON if n == poisoned else float(n + 1))
    bench.run_all()
    for n in range(4):
        if n == poisoned:
            assert isinstance(bench.error(n), EngineFailure)
        else:
            assert bench.values(n) == [2.0 * (n + 1)]


def test_a_failing_part_fails_a_split_request_once_and_drops_its_other_rows() -> None:
    bench = Bench(max_batch_rows=2)
    large, _ = bench.submit(1.0, 2.0, POISON, 3.0, 4.0, 5.0)
    after, _ = bench.submit(7.0)
    bench.run_all()
    assert isinstance(bench.error(large), EngineFailure)
    assert bench.values(after) == [14.0]
    assert bench.batcher.waiting_rows == 0
    assert ("decode", [4.0, 5.0]) not in bench.engine.batches


def test_cancelling_a_partly_run_request_drops_its_other_rows() -> None:
    bench = Bench(max_batch_rows=2)
    large, request = bench.submit(1.0, 2.0, 3.0, 4.0)
    bench.batcher.run_next()
    request.cancel()
    bench.run_all()
    assert large not in bench.completions
    assert bench.engine.batches == [("decode", [1.0, 2.0])]


def test_a_failing_callback_does_not_affect_other_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()

    def broken(_: Completion) -> None:
        raise RuntimeError("broken callback")

    bench.batcher.submit("decode", (Rows(np.ones((1, 1), np.float32)),), None, broken)
    number, _ = bench.submit(2.0)
    bench.run_all()
    assert bench.values(number) == [4.0]
    assert "broken callback" in caplog.text


def test_an_engine_that_returns_too_few_rows_is_an_error() -> None:
    bench = Bench()
    bench.engine.run = lambda operation, inputs: [inputs[0][:-1]]  # type: ignore[method-assign]
    number, _ = bench.submit(1.0, 2.0)
    bench.run_all()
    assert isinstance(bench.error(number), EngineFailure)


def test_a_deadline_in_the_past_is_refused_at_once() -> None:
    bench = Bench()
    with pytest.raises(DeadlineExceeded):
        bench.submit(1.0, deadline=0.5)
    assert bench.batcher.waiting_rows == 0


def test_timings_are_those_of_the_clock() -> None:
    bench = Bench(max_batch_rows=2)
    number, _ = bench.submit(1.0, 2.0, 3.0)
    bench.clock.ns += 5_000
    bench.engine.during_run = lambda: setattr(bench.clock, "ns", bench.clock.ns + 700)
    bench.run_all()
    (completion,) = bench.completions[number]
    assert (completion.queue_ns, completion.compute_ns, completion.batch_rows) == (5_000, 1_400, 2)


def test_the_next_batch_does_not_overwrite_the_outputs() -> None:
    bench = Bench(max_batch_rows=2)
    first, _ = bench.submit(1.0, 2.0)
    bench.batcher.run_next()
    second, _ = bench.submit(3.0, 4.0)
    bench.batcher.run_next()
    assert bench.values(first) == [2.0, 4.0]
    assert bench.values(second) == [6.0, 8.0]


def test_uint8_rows_are_divided_while_they_are_written() -> None:
    rows = Rows(np.arange(256, dtype=np.uint8).reshape(256, 1), divisor=255.0)
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(rows.as_float32()[:, 0], expected)


def test_close_completes_queued_requests_and_refuses_new_ones() -> None:
    bench = Bench()
    number, _ = bench.submit(1.0)
    bench.batcher.close(timeout_s=0.0)  # without a thread nothing can run any more
    assert isinstance(bench.error(number), Unavailable)
    with pytest.raises(Unavailable):
        bench.submit(2.0)


def thread_of(name: str) -> threading.Thread:
    (found,) = [thread for thread in threading.enumerate() if thread.name == f"engine-{name}"]
    return found


def submit_to(batcher: Batcher, value: float, done: Callable[[Completion], None]) -> QueuedRequest:
    return batcher.submit("decode", (Rows(np.full((1, 2), value, np.float32)),), None, done)


def test_an_accepting_inline_hook_runs_the_batches_in_place_of_the_thread() -> None:
    hook_calls: list[Batcher] = []

    def accept(batcher: Batcher) -> bool:
        hook_calls.append(batcher)
        return True

    batcher = Batcher(
        FakeEngine(Clock()), name="fake", max_batch_rows=8, queue_rows=16, inline_hook=accept
    )
    batcher.start()
    completions: list[Completion] = []
    submit_to(batcher, 1.0, completions.append)
    submit_to(batcher, 2.0, completions.append)
    assert hook_calls == [batcher], "the second request arrives at a busy batcher"
    assert not completions
    assert not batcher.run_next(), "the queue is empty"
    assert [done.outputs[0][0, 0] for done in completions] == [2.0, 4.0]
    submit_to(batcher, 3.0, completions.append)
    assert len(hook_calls) == 2
    batcher.shutdown()
    while batcher.run_next():
        pass
    batcher.close(timeout_s=5.0)
    assert len(completions) == 3


def test_the_claim_is_released_when_all_queued_requests_have_expired() -> None:
    """Otherwise two threads could run batches at the same time."""
    hook_calls: list[Batcher] = []

    def accept(batcher: Batcher) -> bool:
        hook_calls.append(batcher)
        return True

    clock, completions = Clock(), list[Completion]()
    batcher = Batcher(
        FakeEngine(clock),
        name="fake",
        max_batch_rows=8,
        queue_rows=16,
        inline_hook=accept,
        clock_ns=lambda: clock.ns,
    )
    rows = (Rows(np.zeros((1, 2), np.float32)),)
    batcher.submit("decode", rows, clock.s + 1.0, completions.append)
    clock.pass_s(2.0)
    assert not batcher.run_next()
    assert isinstance(completions[0].error, DeadlineExceeded)
    submit_to(batcher, 1.0, completions.append)
    assert len(hook_calls) == 2


@pytest.mark.parametrize("accepts", [False, True])
def test_the_thread_runs_batches_that_are_not_executed_inline(accepts: bool) -> None:
    done = threading.Event()
    engine = FakeEngine(Clock())
    batcher = Batcher(
        engine, name="fake", max_batch_rows=8, queue_rows=16, inline_hook=lambda _: accepts
    )
    batcher.start()
    submit_to(batcher, 1.0, lambda _: done.set())
    if accepts:
        assert not done.is_set()
        batcher.wake_thread()
    assert done.wait(5.0)
    batcher.close(timeout_s=5.0)


def test_after_shutdown_the_thread_waits_for_a_claimed_batch() -> None:
    engine, batcher_name = FakeEngine(Clock()), "claimed"
    batcher = Batcher(
        engine, name=batcher_name, max_batch_rows=8, queue_rows=16, inline_hook=lambda _: True
    )
    batcher.start()
    completions: list[Completion] = []
    submit_to(batcher, 1.0, completions.append)
    batcher.shutdown()
    batcher.close(timeout_s=0.05)  # `run_next` was not called in time
    assert isinstance(completions[0].error, Unavailable)
    assert not engine.batches
    thread = thread_of(batcher_name)
    assert not batcher.run_next()
    thread.join(10.0)
    assert not thread.is_alive()


def test_batches_handed_to_the_thread_after_shutdown_are_run() -> None:
    engine = FakeEngine(Clock())
    batcher = Batcher(
        engine, name="late", max_batch_rows=8, queue_rows=16, inline_hook=lambda _: True
    )
    batcher.start()
    done = threading.Event()
    submit_to(batcher, 1.0, lambda _: done.set())
    batcher.shutdown()
    thread_of("late").join(0.05)  # it does not end yet
    batcher.wake_thread()
    assert done.wait(10.0)
    batcher.close(timeout_s=10.0)


def test_the_estimate_is_for_the_operation_that_runs_next() -> None:
    bench = Bench()
    assert bench.batcher.estimate_next_batch() == (0.0, 0)
    bench.batcher.learn("encode", 1, 0.25)
    bench.batcher.learn("decode", 1, 0.5)
    bench.submit(1.0, operation="encode")
    bench.clock.ns += 1
    bench.submit(1.0, operation="decode")
    assert bench.batcher.estimate_next_batch() == (0.25, 1)
    assert not bench.batcher.has_full_batch
    bench.batcher.run_next()
    assert bench.batcher.waiting_by_operation() == {"decode": 1}
    bench.submit(*[1.0] * 7, operation="sample")
    assert bench.batcher.has_full_batch


def test_without_measurement_the_estimate_is_infinite() -> None:
    bench = Bench()
    bench.submit(1.0)
    assert bench.batcher.estimate_next_batch() == (math.inf, 1)
    bench.engine.seconds = lambda operation, rows: 0.25
    bench.run_all()
    bench.submit(1.0)
    assert bench.batcher.estimate_next_batch() == (pytest.approx(0.25), 1)


@pytest.mark.parametrize(
    ("calls", "rows", "in_batch"),
    [(3, 2, 3), (4, 2, 4), (8, 2, 4), (100, 1, 8), (2, 12, 1), (3, 5, 1)],
)
def test_the_estimate_counts_the_requests_of_one_batch(
    calls: int, rows: int, in_batch: int
) -> None:
    bench = Bench(max_batch_rows=8, queue_rows=200)
    bench.batcher.learn("decode", 8, 0.5)
    for _ in range(calls):
        bench.submit(*[1.0] * rows)
    assert bench.batcher.estimate_next_batch()[1] == in_batch


def test_outputs_of_several_batches_are_allocated_once() -> None:
    bench = Bench(max_batch_rows=4)
    large, request = bench.submit(*map(float, range(10)))
    bench.batcher.run_next()
    (allocated,) = request.outputs
    bench.run_all()
    (completion,) = bench.completions[large]
    assert completion.outputs[0] is allocated
    assert allocated.base is None
    assert allocated.shape == (10, 1)


def test_outputs_of_one_batch_are_not_copied() -> None:
    bench = Bench()
    first, _ = bench.submit(1.0)
    second, _ = bench.submit(2.0)
    bench.run_all()
    bases = [bench.completions[n][0].outputs[0].base for n in (first, second)]
    assert bases[0] is not None
    assert bases[0] is bases[1]


def test_shutdown_takes_no_lock() -> None:
    """A finalizer calls it, which may run at any point, also while the batcher holds its lock."""
    ended = threading.Event()

    class Ending(BatcherCallbacks):
        def dropped(self, operation: str, reason: str) -> None:  # the lock is held
            threading.Thread(target=self._end).start()
            ended.wait(10)

        def _end(self) -> None:
            batcher.shutdown()
            ended.set()

    batcher = Batcher(
        FakeEngine(Clock()), name="fake", max_batch_rows=8, queue_rows=16, callbacks=Ending()
    )
    rows = Rows(np.ones((1, 1), dtype=np.float32))
    batcher.submit("decode", (rows,), None, lambda completion: None).cancel()
    assert ended.is_set()
    with pytest.raises(Unavailable):
        batcher.submit("decode", (rows,), None, lambda completion: None)


def test_close_ends_an_idle_thread() -> None:
    batcher = Batcher(FakeEngine(Clock()), name="sleepy", max_batch_rows=8, queue_rows=16)
    batcher.start()
    batcher.close(timeout_s=10)
    assert "engine-sleepy" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_runs_everything_before_it_ends() -> None:
    engine = FakeEngine(Clock())
    batcher = Batcher(engine, name="threaded", max_batch_rows=4, queue_rows=1000)
    batcher.start()
    done = threading.Semaphore(0)
    answers: dict[int, float] = {}

    def submit_all(numbers: range) -> None:
        for number in numbers:
            submit(number)

    def submit(number: int) -> None:
        def finished(completion: Completion) -> None:
            answers[number] = float(completion.outputs[0][0, 0])
            done.release()

        batcher.submit("decode", (Rows(np.full((1, 1), number, np.float32)),), None, finished)

    threads = [
        threading.Thread(target=submit_all, args=(range(base, base + 50),))
        for base in range(0, 200, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    batcher.close(timeout_s=10.0)
    for _ in range(200):
        assert done.acquire(timeout=10)
    assert answers == {number: 2.0 * number for number in range(200)}
    assert batcher.waiting_rows == 0
