"""What may wait: rows and bytes, of one model and of all together, and nobody starves."""

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
    """Take single rows until there is room for no more; return how many."""
    rows = 0
    while model_quota.take(1, row_bytes) is None:
        rows += 1
    return rows


def test_a_model_has_limits_of_its_own_in_rows_and_in_bytes() -> None:
    model_quota = QueueQuota().model_quota(max_rows=10, max_bytes=100)
    assert model_quota.take(7, 20) is None
    assert model_quota.take(4, 1) == QuotaExcess("queue_rows", 7, 4, 10, over=1)
    assert model_quota.take(3, 81) == QuotaExcess("queue_bytes", 20, 81, 100, over=1)
    assert model_quota.take(3, 80) is None
    model_quota.give_back(1, 50)
    assert (model_quota.rows, model_quota.nbytes) == (9, 50)
    assert model_quota.take(1, 50) is None


def test_a_single_model_has_the_overall_limit_for_itself() -> None:
    assert fill(QueueQuota(max_rows=11).model_quota(max_rows=100)) == 11
    assert fill(QueueQuota(max_bytes=110).model_quota(max_rows=100), row_bytes=10) == 11


@pytest.mark.parametrize("unit", ["rows", "bytes"])
def test_of_two_models_one_may_take_three_quarters_and_the_other_always_has_its_own(
    unit: str,
) -> None:
    queue_quota = QueueQuota(max_rows=40) if unit == "rows" else QueueQuota(max_bytes=40)
    greedy, modest = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    assert fill(greedy) == 30
    excess = greedy.take(1, 1)
    assert excess == QuotaExcess(f"total_queue_{unit}", 30, 1, 40, over=1, kept=10)
    assert fill(modest) == 10
    assert (queue_quota.rows, queue_quota.nbytes) == (40, 40)


def test_what_one_gives_back_beyond_its_part_is_free_for_the_other() -> None:
    queue_quota = QueueQuota(max_rows=40)
    first, second = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    fill(first)
    fill(second)
    first.give_back(15, 15)
    assert fill(second) == 15
    first.give_back(10, 10)  # five of them are of the first's own part
    assert fill(second) == 5
    assert fill(first) == 5


def test_nothing_is_kept_for_a_version_that_has_ended() -> None:
    queue_quota = QueueQuota(max_rows=40)
    old, new = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    assert old.take(4, 4) is None
    old.ended = True
    assert fill(new) == 36
    old.give_back(4, 4)
    assert fill(new) == 4


@pytest.mark.parametrize("seed", range(5))
def test_however_they_come_and_go_nobody_is_refused_within_its_part_and_nothing_exceeds(
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
            model_quota.give_back(rows, nbytes)
            continue
        model_quota = model_quotas[min(int(random_.expovariate(1.0)), 3)]  # the first wants most
        rows, nbytes = random_.randint(1, 6), random_.randint(1, 60)
        within = model_quota.rows + rows <= 12 and model_quota.nbytes + nbytes <= 125
        excess = model_quota.take(rows, nbytes)
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
    first.give_back(10, 10)
    assert fill(first) == 0
    assert fill(second) == 10


def test_room_comes_from_those_beyond_their_part_and_from_oneself() -> None:
    queue_quota = QueueQuota(max_rows=40)
    greedy, modest = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    fill(greedy)
    assert modest.take(5, 5) is None
    excess = modest.take(9, 9)
    assert excess is not None
    assert excess.over == 4
    assert modest.wait_s(excess) is None  # nobody knows yet
    greedy.rows_per_s, modest.rows_per_s = 15.0, 5.0
    assert modest.wait_s(excess) == pytest.approx(4 / 20)
    more = greedy.take(1, 1)
    assert more is not None
    assert greedy.wait_s(more) == pytest.approx(1 / 15)


def test_room_for_bytes_comes_by_rows() -> None:
    queue_quota = QueueQuota(max_bytes=100)
    model_quota = queue_quota.model_quota(max_rows=100)
    fill(model_quota, row_bytes=10)
    model_quota.rows_per_s = 2.0
    excess = model_quota.take(1, 30)
    assert excess is not None
    assert excess.over == 30
    assert model_quota.wait_s(excess) == pytest.approx(1.5)


def test_the_error_says_which_limit_what_waits_and_what_was_sent() -> None:
    error = QuotaExcess("total_queue_bytes", 700, 50, 800, over=20, kept=70).error("m/1", 0.25)
    assert str(error) == (
        "the queues of all models are full: 700 bytes wait, the request has 50, the limit is 800 "
        "(--total-queue-bytes), of which 70 are kept for other models. "
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
    ("wait_s", "told_s"), [(None, 0.1), (0.0, 0.01), (0.001, 0.01), (2.0, 2.0), (60.0, 5.0)]
)
def test_a_time_to_retry_is_neither_nothing_nor_for_ever(
    wait_s: float | None, told_s: float
) -> None:
    excess = QuotaExcess("queue_rows", 4, 1, 4, over=1)
    assert excess.error("m/1", wait_s).retry_after_s == told_s


def test_what_would_not_fit_into_an_empty_queue_gets_no_time_to_retry() -> None:
    bench = Bench(queue_rows=4)
    with pytest.raises(QueueFull, match="would not fit into an empty queue either") as caught:
        bench.submit(*[1.0] * 5)
    assert caught.value.retry_after_s is None
    queue_quota = QueueQuota(max_rows=40)
    model_quota, _ = queue_quota.model_quota(max_rows=100), queue_quota.model_quota(max_rows=100)
    for rows, fits in ((30, True), (31, False)):
        queue_quota.rows = 39
        excess = model_quota.take(rows, rows)
        assert excess is not None
        assert excess.fits_alone == fits


def test_bytes_are_those_that_were_sent_and_leave_with_their_rows() -> None:
    bench = Bench(max_batch_rows=4, queue_bytes=8 * 100)
    whole = Rows(np.zeros((8, 100), dtype=np.uint8), divisor=255.0)
    bench.batcher.submit("encode", (whole,), None, lambda completion: None)
    assert bench.batcher.waiting_bytes == 800
    with pytest.raises(QueueFull, match="800 bytes wait, the request has 4, the limit is 800"):
        bench.submit(1.0)
    assert bench.heard.events[-1] == ("refused", "decode", "queue_full")
    bench.batcher.run_next()
    assert bench.batcher.waiting_bytes == 400
    _, request = bench.submit(*[1.0] * 4)
    assert bench.batcher.waiting_bytes == 400 + 4 * 4
    request.cancel()
    assert bench.batcher.waiting_bytes == 400
    bench.run_all()
    assert bench.batcher.waiting_bytes == 0


def test_a_full_budget_refuses_as_all_queues_together() -> None:
    queue_quota = QueueQuota(max_rows=16)
    first, second = Bench(queue_quota=queue_quota), Bench(queue_quota=queue_quota)
    first.submit(*[1.0] * 12)
    with pytest.raises(QueueFull, match="the queues of all models are full: 12 rows wait"):
        first.submit(1.0)
    assert first.heard.events == [("refused", "decode", "total_full")]
    second.submit(*[1.0] * 4)
    first.run_all()
    second.run_all()
    assert (queue_quota.rows, queue_quota.nbytes) == (0, 0)


def test_versions_that_ended_are_forgotten_when_others_come() -> None:
    queue_quota = QueueQuota(max_rows=40)
    model_quota = queue_quota.model_quota(max_rows=100)
    model_quota.ended = True
    forgotten = weakref.ref(model_quota)
    del model_quota
    queue_quota.model_quota(max_rows=100)
    assert forgotten() is None


def test_a_batcher_that_ended_leaves_its_part_to_the_others() -> None:
    queue_quota = QueueQuota(max_rows=16)
    old, new = Bench(queue_quota=queue_quota), Bench(queue_quota=queue_quota)
    old.batcher.end()
    new.submit(*[1.0] * 16)


class HeldEngine(FakeEngine):
    """Runs no batch to its end before it is released."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.begun = threading.Event()
        self.released = threading.Event()
        self.during_run = self._hold

    def _hold(self) -> None:
        self.begun.set()
        assert self.released.wait(WAIT_S)


def test_a_saturated_model_takes_neither_engine_nor_place_from_another() -> None:
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
        with pytest.raises(QueueFull, match="kept for other models"):
            busy.submit("decode", (rows,), None, done)
        for _ in range(50):  # one after the other, all through while `busy` has not moved
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


def test_several_threads_lose_no_count() -> None:
    queue_quota = QueueQuota(max_rows=200)
    model_quotas = [queue_quota.model_quota(max_rows=1000) for _ in range(4)]

    def work(model_quota: ModelQuota) -> None:
        for _ in range(500):
            if model_quota.take(3, 7) is None:
                model_quota.give_back(3, 7)

    threads = [threading.Thread(target=work, args=(model_quota,)) for model_quota in model_quotas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert (queue_quota.rows, queue_quota.nbytes) == (0, 0)
