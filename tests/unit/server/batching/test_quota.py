"""Quotas on queued rows and bytes, per model and in total, and their reserved parts."""

from __future__ import annotations

import random
import threading
import weakref

import numpy as np
import pytest

from batch_bench import Bench, Clock, FakeEngine
from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.quota import ModelQuota, QueueQuota, QuotaExcess
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.errors import QueueFull

WAIT_S = 20.0


def fill(model_quota: ModelQuota, *, row_bytes: int = 1) -> int:
    """Acquire single rows until the quota is full; return how many."""
    rows = 0
    while model_quota.acquire(1, row_bytes) is None:
        rows += 1
    return rows


def test_a_model_has_limits_of_its_own_in_rows_and_in_bytes() -> None:
    model_quota = QueueQuota().model_quota(max_rows=10, max_bytes=100)
    assert model_quota.acquire(7, 20) is None
    assert model_quota.acquire(4, 1) == QuotaExcess("queue_rows", 7, 4, 10, exceeded_by=1)
    assert model_quota.acquire(3, 81) == QuotaExcess("queue_bytes", 20, 81, 100, exceeded_by=1)
    assert model_quota.acquire(3, 80) is None
    model_quota.release(1, 50)
    assert (model_quota.rows, model_quota.nbytes) == (9, 50)
    assert model_quota.acquire(1, 50) is None


def test_a_single_model_can_use_the_total_limit() -> None:
    assert fill(QueueQuota(max_rows=11).model_quota(max_rows=100)) == 11
    assert fill(QueueQuota(max_bytes=110).model_quota(max_rows=100), row_bytes=10) == 11


@pytest.mark.parametrize("unit", ["rows", "bytes"])
def test_of_two_models_one_may_take_three_quarters_and_the_other_always_has_its_own(
    unit: str,
) -> None:
    queue_quota = QueueQuota(max_rows=40) if unit == "rows" else QueueQuota(max_bytes=40)
    greedy, modest = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    assert fill(greedy) == 30
    excess = greedy.acquire(1, 1)
    assert excess == QuotaExcess(f"total_queue_{unit}", 30, 1, 40, exceeded_by=1, reserved=10)
    assert fill(modest) == 10
    assert (queue_quota.rows, queue_quota.nbytes) == (40, 40)


def test_rows_released_beyond_a_part_are_free_for_the_other() -> None:
    queue_quota = QueueQuota(max_rows=40)
    first, second = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    fill(first)
    fill(second)
    first.release(15, 15)
    assert fill(second) == 15
    first.release(10, 10)  # five of them are in the first one's reserved part
    assert fill(second) == 5
    assert fill(first) == 5


def test_no_part_is_reserved_for_an_ended_version() -> None:
    queue_quota = QueueQuota(max_rows=40)
    old, new = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    assert old.acquire(4, 4) is None
    old.ended = True
    assert fill(new) == 36
    old.release(4, 4)
    assert fill(new) == 4


@pytest.mark.parametrize("seed", range(5))
def test_no_model_is_refused_within_its_part_and_the_total_limit_holds(
    seed: int,
) -> None:
    random_ = random.Random(seed)
    queue_quota = QueueQuota(max_rows=100, max_bytes=1000)
    model_quotas = [queue_quota.model_quota(max_rows=10**6) for _ in range(4)]
    held: list[tuple[ModelQuota, int, int]] = []
    refused = 0
    for _ in range(3000):
        if held and random_.random() < 0.45:
            model_quota, rows, nbytes = held.pop(random_.randrange(len(held)))
            model_quota.release(rows, nbytes)
            continue
        model_quota = model_quotas[min(int(random_.expovariate(1.0)), 3)]  # most for the first one
        rows, nbytes = random_.randint(1, 6), random_.randint(1, 60)
        within = model_quota.rows + rows <= 12 and model_quota.nbytes + nbytes <= 125
        excess = model_quota.acquire(rows, nbytes)
        if excess is None:
            held.append((model_quota, rows, nbytes))
        else:
            refused += 1
            assert not within
        assert queue_quota.rows == sum(model_quota.rows for model_quota in model_quotas) <= 100
        assert queue_quota.nbytes == sum(model_quota.nbytes for model_quota in model_quotas) <= 1000
    assert refused > 100


def test_the_parts_shrink_with_a_new_version_and_the_overall_limit_holds_meanwhile() -> None:
    queue_quota = QueueQuota(max_rows=40)
    first = queue_quota.model_quota(max_rows=100)
    assert fill(first) == 40
    second = queue_quota.model_quota(max_rows=100)
    assert fill(second) == 0
    first.release(10, 10)
    assert fill(first) == 0
    assert fill(second) == 10


def test_models_beyond_their_part_and_the_model_itself_make_room() -> None:
    queue_quota = QueueQuota(max_rows=40)
    greedy, modest = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    fill(greedy)
    assert modest.acquire(5, 5) is None
    excess = modest.acquire(9, 9)
    assert excess is not None
    assert excess.exceeded_by == 4
    assert modest.wait_s(excess) is None  # no measurement yet
    greedy.rows_per_s, modest.rows_per_s = 15.0, 5.0
    assert modest.wait_s(excess) == pytest.approx(4 / 20)
    more = greedy.acquire(1, 1)
    assert more is not None
    assert greedy.wait_s(more) == pytest.approx(1 / 15)


def test_the_wait_for_bytes_follows_the_rows() -> None:
    queue_quota = QueueQuota(max_bytes=100)
    model_quota = queue_quota.model_quota(max_rows=100)
    fill(model_quota, row_bytes=10)
    model_quota.rows_per_s = 2.0
    excess = model_quota.acquire(1, 30)
    assert excess is not None
    assert excess.exceeded_by == 30
    assert model_quota.wait_s(excess) == pytest.approx(1.5)


def test_the_error_names_the_limit_the_queue_size_and_the_request_size() -> None:
    error = QuotaExcess("total_queue_bytes", 700, 50, 800, exceeded_by=20, reserved=70).error(
        "m/1", 0.25
    )
    assert str(error) == (
        "the queues of all models are full: 700 bytes wait, the request has 50, the limit is 800 "
        "(--total-queue-bytes), of which 70 are reserved for other models. "
        "Try again later, or with fewer rows"
    )
    assert error.metadata == {
        "limit": "total_queue_bytes",
        "waiting_bytes": "700",
        "request_bytes": "50",
        "total_queue_bytes": "800",
    }
    assert error.retry_after_s == 0.25


@pytest.mark.parametrize(
    ("wait_s", "retry_s"), [(None, 0.1), (0.0, 0.01), (0.001, 0.01), (2.0, 2.0), (60.0, 5.0)]
)
def test_the_retry_delay_is_limited(wait_s: float | None, retry_s: float) -> None:
    excess = QuotaExcess("queue_rows", 4, 1, 4, exceeded_by=1)
    assert excess.error("m/1", wait_s).retry_after_s == retry_s


def test_a_request_larger_than_the_queue_gets_no_retry_delay() -> None:
    bench = Bench(queue_rows=4)
    with pytest.raises(QueueFull, match="would not fit into an empty queue either") as caught:
        bench.submit(*[1.0] * 5)
    assert caught.value.retry_after_s is None
    queue_quota = QueueQuota(max_rows=40)
    model_quota, _ = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    for rows, fits in ((30, True), (31, False)):
        queue_quota.rows = 39
        excess = model_quota.acquire(rows, rows)
        assert excess is not None
        assert excess.fits_empty_queue == fits


def test_bytes_are_counted_as_sent_and_released_with_their_rows() -> None:
    bench = Bench(max_batch_rows=4, queue_bytes=8 * 100)
    whole = Rows(np.zeros((8, 100), dtype=np.uint8), divisor=255.0)
    bench.batcher.submit("encode", (whole,), None, lambda completion: None)
    assert bench.batcher.waiting_bytes == 800
    with pytest.raises(QueueFull, match="800 bytes wait, the request has 4, the limit is 800"):
        bench.submit(1.0)
    assert bench.recorder.events[-1] == ("refused", "decode", "queue_full")
    bench.batcher.run_next()
    assert bench.batcher.waiting_bytes == 400
    _, request = bench.submit(*[1.0] * 4)
    assert bench.batcher.waiting_bytes == 400 + 4 * 4
    request.cancel()
    assert bench.batcher.waiting_bytes == 400
    bench.run_all()
    assert bench.batcher.waiting_bytes == 0


def test_a_full_total_quota_refuses_with_total_full() -> None:
    queue_quota = QueueQuota(max_rows=16)
    first, second = Bench(queue_quota=queue_quota), Bench(queue_quota=queue_quota)
    first.submit(*[1.0] * 12)
    with pytest.raises(QueueFull, match="the queues of all models are full: 12 rows wait"):
        first.submit(1.0)
    assert first.recorder.events == [("refused", "decode", "total_full")]
    second.submit(*[1.0] * 4)
    first.run_all()
    second.run_all()
    assert (queue_quota.rows, queue_quota.nbytes) == (0, 0)


def test_the_quotas_of_ended_versions_are_released() -> None:
    queue_quota = QueueQuota(max_rows=40)
    model_quota = queue_quota.model_quota(max_rows=100)
    model_quota.ended = True
    reference = weakref.ref(model_quota)
    del model_quota
    queue_quota.model_quota(max_rows=100)
    assert reference() is None


def test_the_part_of_a_closed_batcher_is_free_for_others() -> None:
    queue_quota = QueueQuota(max_rows=16)
    old, new = Bench(queue_quota=queue_quota), Bench(queue_quota=queue_quota)
    old.batcher.shutdown()
    new.submit(*[1.0] * 16)


class HeldEngine(FakeEngine):
    """Blocks every batch until it is released."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.begun = threading.Event()
        self.released = threading.Event()
        self.during_run = self._hold

    def _hold(self) -> None:
        self.begun.set()
        assert self.released.wait(WAIT_S)


def test_a_saturated_model_does_not_block_another() -> None:
    queue_quota = QueueQuota(max_rows=64)
    held, free = HeldEngine(), FakeEngine(Clock())
    busy = Batcher(held, name="busy", max_batch_rows=4, queue_rows=64, queue_quota=queue_quota)
    calm = Batcher(free, name="calm", max_batch_rows=4, queue_rows=64, queue_quota=queue_quota)
    busy.start()
    calm.start()
    rows = Rows(np.ones((4, 1), dtype=np.float32))
    answered = threading.Semaphore(0)

    def done(completion: Completion) -> None:
        assert completion.error is None
        answered.release()

    try:
        busy.submit("decode", (rows,), None, done)
        assert held.begun.wait(WAIT_S)
        admitted = 13
        for _ in range(admitted - 1):
            busy.submit("decode", (rows,), None, done)
        with pytest.raises(QueueFull, match="reserved for other models"):
            busy.submit("decode", (rows,), None, done)
        for _ in range(50):  # one after the other, while `busy` is blocked
            calm.submit("decode", (rows,), None, done)
            assert answered.acquire(timeout=WAIT_S)
        assert busy.waiting_rows == 48
    finally:
        held.released.set()
        busy.close(timeout_s=WAIT_S)
        calm.close(timeout_s=WAIT_S)
    for _ in range(admitted):
        assert answered.acquire(timeout=WAIT_S)
    assert (queue_quota.rows, queue_quota.nbytes) == (0, 0)


def test_the_quota_is_thread_safe() -> None:
    queue_quota = QueueQuota(max_rows=200)
    model_quotas = [queue_quota.model_quota(max_rows=1000) for _ in range(4)]

    def work(model_quota: ModelQuota) -> None:
        for _ in range(500):
            if model_quota.acquire(3, 7) is None:
                model_quota.release(3, 7)

    threads = [threading.Thread(target=work, args=(model_quota,)) for model_quota in model_quotas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert (queue_quota.rows, queue_quota.nbytes) == (0, 0)
