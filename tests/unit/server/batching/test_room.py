"""Requests that wait for room outside a full queue."""

from __future__ import annotations

import numpy as np
import pytest

from batch_bench import Bench
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.batching.request import Rows
from latentserve_server.errors import QueueFull


def waits(bench: Bench, rows: int, admitted: list[int]) -> object:
    """Let a request of `rows` rows wait; add its size to `admitted` when it is submitted."""

    def admit() -> bool:
        array = np.zeros((rows, 1), dtype=np.float32)
        try:
            bench.batcher.submit("decode", (Rows(array),), None, lambda c: None, waited=True)
        except QueueFull:
            return False
        admitted.append(rows)
        return True

    return bench.batcher.wait_for_room(rows, rows * 4, admit)


def test_requests_that_wait_are_admitted_in_order_when_rows_leave() -> None:
    bench = Bench(max_batch_rows=2, queue_rows=4)
    bench.submit(1.0, 2.0, 3.0, 4.0)
    admitted: list[int] = []
    waits(bench, 3, admitted)
    waits(bench, 1, admitted)
    assert not admitted
    bench.batcher.run_next()  # two rows leave: too few for the first, which is not overtaken
    assert not admitted
    bench.run_all()
    assert admitted == [3, 1]
    assert not bench.batcher.room.waiting
    bench.run_all()
    assert bench.batcher.waiting_rows == 0


def test_new_requests_cannot_take_the_room_that_is_promised() -> None:
    bench = Bench(max_batch_rows=1, queue_rows=4)
    bench.batcher.room.patience_s = 0.0
    bench.submit(1.0, 2.0, 3.0, 4.0)
    admitted: list[int] = []
    waits(bench, 4, admitted)
    for _ in range(3):
        bench.batcher.run_next()
        with pytest.raises(QueueFull):
            bench.submit(5.0)
    bench.batcher.run_next()
    assert admitted == [4]


def test_waiting_requests_leave_room_for_new_ones() -> None:
    bench = Bench(max_batch_rows=4, queue_rows=16)
    bench.submit(*[1.0] * 16)
    bench.batcher.room.patience_s = 1e9
    admitted: list[int] = []
    for _ in range(3):
        waits(bench, 4, admitted)
    while bench.batcher.run_next():
        if bench.batcher.room.waiting:
            assert bench.batcher.waiting_rows <= 14
            _, request = bench.submit(2.0)
            request.cancel()
    assert admitted == [4, 4, 4]


def test_a_request_that_is_forgotten_is_not_admitted_and_promises_nothing() -> None:
    bench = Bench(max_batch_rows=1, queue_rows=2)
    bench.submit(1.0, 2.0)
    admitted: list[int] = []
    waiter = waits(bench, 2, admitted)
    bench.batcher.room.forget(waiter)  # type: ignore[arg-type]
    bench.batcher.run_next()
    bench.submit(3.0)
    bench.run_all()
    assert not admitted
    assert not bench.batcher.room.waiting


def test_room_that_is_free_already_is_used_at_once() -> None:
    bench = Bench(queue_rows=2)
    admitted: list[int] = []
    waits(bench, 2, admitted)
    assert admitted == [2]


def test_rows_of_another_model_make_room_in_the_total() -> None:
    quota = QueueQuota(max_rows=8, max_bytes=2**20)
    first = Bench(queue_rows=8, queue_quota=quota)
    second = Bench(queue_rows=8, queue_quota=quota)
    first.submit(*[1.0] * 6)
    admitted: list[int] = []
    waits(second, 4, admitted)
    assert not admitted
    first.run_all()
    assert admitted == [4]
