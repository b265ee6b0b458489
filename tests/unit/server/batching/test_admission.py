"""Admission by deadline, and retry delays of refused requests, checked with a manual clock."""

from __future__ import annotations

import pytest

from batch_bench import Bench
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.errors import DeadlineExceeded, QueueFull

TENTH = 0.1


def steady(**options: int) -> Bench:
    """Return a batcher with measurements of 0.1 s per batch, independent of its rows."""
    bench = Bench(**options)
    bench.engine.seconds = lambda operation, rows: TENTH
    for rows in (1, 8, 1, 8):
        bench.submit(*[1.0] * rows)
        bench.run_all()
    bench.recorder.events.clear()
    bench.engine.batches.clear()
    return bench


def submit_in(bench: Bench, seconds: float, *values: float, operation: str = "decode") -> int:
    """Submit a request with a deadline in `seconds`."""
    return bench.submit(*values, operation=operation, deadline=bench.clock.s + seconds)[0]


# --- deadlines --------------------------------------------------------------------------------


def test_nothing_is_refused_before_the_first_measurement() -> None:
    bench = Bench(queue_rows=1000)
    for _ in range(100):
        submit_in(bench, 1e-9, *[1.0] * 8)
    assert bench.recorder.events == []


def test_an_idle_engine_admits_every_deadline_in_the_future() -> None:
    bench = steady()
    submit_in(bench, 1e-6, 1.0)
    assert bench.recorder.events == []


def test_a_request_that_would_expire_in_the_queue_is_refused_at_once() -> None:
    bench = steady(queue_rows=1000)
    for _ in range(10):
        bench.submit(*[1.0] * 8)  # one second of work
    rows_before = bench.batcher.waiting_rows
    with pytest.raises(DeadlineExceeded) as caught:
        submit_in(bench, 0.49, 2.0)
    assert bench.recorder.events == [("refused", "decode", "deadline")]
    assert bench.batcher.waiting_rows == rows_before
    assert "the deadline is in 0.49 s, but 80 rows are queued" in str(caught.value)
    assert "the expected wait is 1 s" in str(caught.value)
    assert "the model did not run" in str(caught.value)
    bench.run_all()
    assert 2.0 not in {value for _, rows in bench.engine.batches for value in rows}


def test_a_request_with_over_half_of_the_expected_time_is_admitted() -> None:
    """Measured durations vary, and a wrong refusal cannot be undone."""
    bench = steady(queue_rows=1000)
    for _ in range(10):
        bench.submit(*[1.0] * 8)
    submit_in(bench, 0.51, 2.0)
    assert bench.recorder.events == []


def test_a_request_with_enough_time_is_admitted_and_completed_in_time() -> None:
    bench = steady(queue_rows=1000)
    for _ in range(10):
        bench.submit(*[1.0] * 8)
    end_s = bench.clock.s + 1.15
    number = submit_in(bench, 1.15, 2.0)
    bench.run_all()
    assert bench.values(number) == [4.0]
    assert bench.clock.s <= end_s


def test_a_running_batch_counts_with_its_remaining_time() -> None:
    bench = steady()
    refused: list[float] = []

    def arrive(after_s: float, within_s: float) -> None:
        bench.clock.pass_s(after_s)
        try:
            submit_in(bench, within_s, 2.0)
        except DeadlineExceeded:
            refused.append(within_s)

    def during() -> None:
        bench.engine.during_run = lambda: None
        arrive(0.0, 0.049)  # 0.1 s remain; the limit is half of it
        arrive(0.0, 0.051)
        arrive(0.06, 0.019)
        arrive(0.0, 0.021)
        arrive(10.0, 0.001)  # longer than any measurement: the remaining time is unknown

    bench.engine.during_run = during
    bench.submit(1.0)
    bench.run_all()
    assert refused == [0.049, 0.019]


def test_a_queue_of_another_operation_is_ahead_only_where_it_is_older() -> None:
    bench = steady(queue_rows=1000)
    bench.submit(1.0, operation="decode")
    for _ in range(20):
        bench.clock.ns += 1
        bench.submit(*[1.0] * 8, operation="encode")
    bench.engine.seconds = lambda operation, rows: TENTH
    submit_in(bench, 0.01, 2.0, operation="decode")  # in the same batch as the queued request
    bench.run_all()
    bench.clock.ns += 1
    for _ in range(20):
        bench.submit(*[1.0] * 8, operation="encode")
        bench.clock.ns += 1
    with pytest.raises(DeadlineExceeded):
        submit_in(bench, 0.9, 2.0, operation="decode")
    submit_in(bench, 1.1, 2.0, operation="decode")


def test_a_slow_operation_does_not_refuse_those_of_a_fast_one() -> None:
    bench = Bench(queue_rows=1000)
    bench.engine.seconds = lambda operation, rows: 1.0 if operation == "sample" else 0.001
    for operation in ("sample", "encode"):
        bench.submit(*[1.0] * 8, operation=operation)
        bench.run_all()
    for _ in range(5):
        bench.submit(*[1.0] * 8, operation="encode")
    submit_in(bench, 0.004, 1.0, operation="encode")
    with pytest.raises(DeadlineExceeded):
        submit_in(bench, 0.002, 1.0, operation="encode")


# --- retry delay ------------------------------------------------------------------------------


def refusal(bench: Bench, rows: int) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        bench.submit(*[2.0] * rows)
    return caught.value


def admitted_after_s(bench: Bench, rows: int) -> float:
    """Run batches until a request fits; return the elapsed time of the clock."""
    started_s = bench.clock.s
    while True:
        dequeued_s = bench.clock.s
        assert bench.batcher.run_next()
        try:
            bench.submit(*[2.0] * rows)
        except QueueFull:
            continue
        return dequeued_s - started_s  # there was room when the batch left the queue


@pytest.mark.parametrize("rows", [1, 8, 9, 17, 64])
@pytest.mark.parametrize("each", [1, 3, 8, 40])
def test_the_hint_is_the_time_until_this_request_fits(rows: int, each: int) -> None:
    """Requests of one row, of odd sizes, of a batch, and of several batches."""
    bench = steady(queue_rows=80)
    while bench.batcher.waiting_rows + each <= 80:
        bench.submit(*[1.0] * each)
    free = 80 - bench.batcher.waiting_rows
    if rows <= free:
        bench.submit(*[1.0] * free)
    hint_s = refusal(bench, rows).retry_after_s
    expected_s = admitted_after_s(bench, rows)
    assert hint_s == pytest.approx(max(expected_s, 0.01))


def test_the_hint_includes_the_running_batch() -> None:
    bench = steady(queue_rows=16)
    hints: list[float | None] = []

    def during() -> None:
        bench.engine.during_run = lambda: None
        bench.clock.pass_s(0.04)
        bench.submit(*[1.0] * 16)
        hints.append(refusal(bench, 4).retry_after_s)
        hints.append(refusal(bench, 12).retry_after_s)

    bench.engine.during_run = during
    bench.submit(1.0)
    bench.batcher.run_next()
    assert hints == [pytest.approx(0.06), pytest.approx(0.16)]


def test_the_hint_is_not_the_time_until_the_queue_is_empty() -> None:
    bench = steady(queue_rows=80)
    bench.submit(*[1.0] * 80)
    assert refusal(bench, 1).retry_after_s == 0.01
    assert refusal(bench, 80).retry_after_s == pytest.approx(0.9)


def test_the_hint_for_a_mixture_is_right_by_a_batch() -> None:
    bench = Bench(queue_rows=80)
    bench.engine.seconds = lambda operation, rows: 0.2 if operation == "encode" else 0.05
    for operation in ("decode", "encode"):
        bench.submit(*[1.0] * 8, operation=operation)
        bench.run_all()
    for n in range(10):
        bench.submit(*[1.0] * 8, operation="encode" if n % 2 else "decode")
        bench.clock.ns += 1
    hint_s = refusal(bench, 64).retry_after_s
    assert hint_s is not None
    assert abs(hint_s - admitted_after_s(bench, 64)) <= 0.2


def test_the_hint_for_bytes_is_that_of_the_rows_that_hold_them() -> None:
    bench = steady(queue_rows=1000, queue_bytes=80 * 4)
    bench.submit(*[1.0] * 80)
    error = refusal(bench, 24)
    assert error.metadata["limit"] == "queue_bytes"
    assert error.retry_after_s == pytest.approx(admitted_after_s(bench, 24))


def test_the_hint_without_any_measurement_is_a_tenth_of_a_second() -> None:
    bench = Bench(queue_rows=8)
    bench.submit(*[1.0] * 8)
    assert refusal(bench, 1).retry_after_s == 0.1


def test_the_hint_for_a_full_total_quota_uses_the_rate_of_models_that_make_room() -> None:
    queue_quota = QueueQuota(max_rows=80)
    greedy, modest = (
        Bench(queue_rows=1000, queue_quota=queue_quota),
        Bench(queue_rows=1000, queue_quota=queue_quota),
    )
    greedy.engine.seconds = lambda operation, rows: TENTH
    greedy.submit(*[1.0] * 8)
    greedy.run_all()
    greedy.submit(*[1.0] * 60)
    hint_s = refusal(modest, 24).retry_after_s
    assert hint_s == pytest.approx(4 / 80)  # 4 rows must leave at 80 rows per second


def test_a_failed_batch_does_not_change_the_service_rate() -> None:
    bench = steady(queue_rows=80)
    bench.engine.seconds = lambda operation, rows: 50.0
    bench.submit(-1.0)
    bench.run_all()
    bench.submit(*[1.0] * 80)
    assert refusal(bench, 80).retry_after_s == pytest.approx(0.9)


def test_the_duration_of_a_batch_includes_its_callbacks() -> None:
    """The next batch waits until the callbacks of this one have returned."""
    bench = Bench(queue_rows=16)
    for _ in range(2):
        _, request = bench.submit(*[1.0] * 8)
        request.done = lambda completion: bench.clock.pass_s(0.3)
        bench.run_all()
    bench.submit(*[1.0] * 16)
    assert refusal(bench, 16).retry_after_s == pytest.approx(0.3)
