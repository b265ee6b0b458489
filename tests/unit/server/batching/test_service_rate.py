"""Service rate: estimates for queued requests from the measured batches."""

from __future__ import annotations

import random

import pytest

from batch_bench import Bench
from latentserve_server.batching.queue import Batch, OperationQueue
from latentserve_server.batching.service_rate import BatchCost, ServiceRate


def test_the_fixed_cost_and_the_cost_of_a_row_are_estimated_separately() -> None:
    cost = BatchCost(1, 0.010 + 0.002)
    for rows in (8, 2, 64, 16, 1, 32, 64, 5):
        cost.learn(rows, 0.010 + 0.002 * rows)
    for rows in (1, 10, 64, 100):
        assert cost.seconds(rows) == pytest.approx(0.010 + 0.002 * rows)


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.1), (4, 0.4), (8, 0.8), (16, 0.8), (64, 0.8)])
def test_with_batches_of_one_size_the_shorter_time_counts(rows: int, seconds: float) -> None:
    cost = BatchCost(8, 0.8)
    for _ in range(20):
        cost.learn(8, 0.8)
    assert cost.seconds(rows) == pytest.approx(seconds)


def test_no_measurement_makes_a_cost_negative() -> None:
    random_ = random.Random(1)
    cost = BatchCost(3, 0.5)
    for _ in range(500):
        cost.learn(random_.randint(1, 64), random_.choice((1e-4, 0.01, 2.0)))
        costs = [cost.seconds(rows) for rows in range(1, 130)]
        assert costs[0] >= 0
        assert costs == sorted(costs)


def test_older_measurements_decay() -> None:
    cost = BatchCost(8, 1.0)
    for _ in range(50):
        cost.learn(8, 0.1)
    assert cost.seconds(8) == pytest.approx(0.1, rel=0.1)


def test_an_outlier_is_limited_and_a_lasting_slowdown_is_learned() -> None:
    cost = BatchCost(8, 0.01)
    cost.learn(8, 60.0)
    assert cost.seconds(8) == pytest.approx(0.013)
    for _ in range(60):
        cost.learn(8, 1.0)
    assert cost.seconds(8) == pytest.approx(1.0, rel=0.1)


def test_a_larger_batch_than_any_before_is_not_an_outlier() -> None:
    cost = BatchCost(1, 0.001)
    cost.learn(64, 0.064)
    assert cost.seconds(64) == pytest.approx(0.064)


def test_an_operation_without_measurement_has_duration_zero() -> None:
    service_rate = ServiceRate(8)
    assert (service_rate.slowest_s, service_rate.rows_per_s) == (0.0, 0.0)
    service_rate.learn("decode", 8, 0.4)
    assert service_rate.batch_s("encode", 8) == 0.0
    assert service_rate.slowest_s == pytest.approx(0.4)
    assert service_rate.rows_per_s == pytest.approx(20.0)


def test_the_slowest_duration_is_of_a_full_batch_of_any_operation() -> None:
    service_rate = ServiceRate(8)
    service_rate.learn("decode", 8, 0.4)
    service_rate.learn("encode", 4, 0.6)
    service_rate.learn("decode", 8, 0.4)
    assert service_rate.slowest_s == pytest.approx(0.6)


def test_the_remaining_time_of_a_running_batch_is_not_negative() -> None:
    service_rate = ServiceRate(8)
    service_rate.learn("decode", 8, 0.4)
    running = Batch("decode", [], 8)
    assert service_rate.remaining_s(running, 0.1) == pytest.approx(0.3)
    assert service_rate.remaining_s(running, 5.0) == 0.0
    assert service_rate.remaining_s(None, 0.0) == 0.0


def queues(**rows: int) -> dict[str, OperationQueue]:
    """Return queues of single rows; those of the first operation are older."""
    bench = Bench(max_batch_rows=8, queue_rows=10_000)
    found: dict[str, OperationQueue] = {}
    for operation, count in rows.items():
        found[operation] = queue = OperationQueue()
        for _ in range(count):
            bench.clock.ns += 1
            queue.add(bench.submit(1.0, operation=operation)[1])
    return found


@pytest.fixture
def service_rate() -> ServiceRate:
    """0.1 s for every batch of decode, 0.01 s per row of encode."""
    service_rate = ServiceRate(8)
    for rows in (1, 8, 1, 8):
        service_rate.learn("decode", rows, 0.1)
        service_rate.learn("encode", rows, 0.01 * rows)
    return service_rate


@pytest.mark.parametrize(("waiting", "batches"), [(1, 0), (7, 0), (8, 1), (15, 1), (16, 2)])
def test_a_request_waits_for_the_full_batches_of_its_operation(
    service_rate: ServiceRate, waiting: int, batches: int
) -> None:
    assert service_rate.queue_wait_s("decode", queues(decode=waiting)) == pytest.approx(
        0.1 * batches
    )


def test_the_first_request_of_an_operation_waits_for_all_others(
    service_rate: ServiceRate,
) -> None:
    assert service_rate.queue_wait_s("encode", queues(decode=17)) == pytest.approx(0.3)
    assert service_rate.queue_wait_s("decode", queues(encode=17)) == pytest.approx(0.17)


def test_a_request_that_joins_a_batch_waits_for_older_batches_only(
    service_rate: ServiceRate,
) -> None:
    assert service_rate.queue_wait_s("encode", queues(encode=1, decode=100)) == 0.0
    assert service_rate.queue_wait_s("encode", queues(decode=100, encode=1)) == pytest.approx(0.1)


@pytest.mark.parametrize(("rows", "batches"), [(1, 0), (8, 0), (9, 1), (16, 1), (17, 2), (80, 9)])
def test_rows_leave_when_their_batch_starts(
    service_rate: ServiceRate, rows: int, batches: int
) -> None:
    assert service_rate.dequeue_s(rows, queues(decode=80)) == pytest.approx(0.1 * batches)


def test_several_operations_use_the_mean_duration_of_their_batches(
    service_rate: ServiceRate,
) -> None:
    # 10 batches of 0.1 s and 10 of 0.08 s; half of them must leave, the last one need not run.
    assert service_rate.dequeue_s(80, queues(decode=80, encode=80)) == pytest.approx(9 * 0.09)


def test_an_empty_queue_has_room_now(service_rate: ServiceRate) -> None:
    assert service_rate.dequeue_s(5, {}) == 0.0
