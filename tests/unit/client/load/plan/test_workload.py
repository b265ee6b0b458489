import itertools
from collections import Counter

from latentserve_client.load.plan.workload import CallKind, Request, Workload


def workload(weights, pools):
    kinds = tuple(CallKind(str(number), "/m", weight) for number, weight in enumerate(weights))
    pool = [kind for kind, size in enumerate(pools) for _ in range(size)]
    return Workload(kinds, tuple(Request(number, kind) for number, kind in enumerate(pool)))


def test_kinds_come_by_their_weights():
    order = workload([5, 3, 0.001], [4, 4, 1]).order(0)
    counts = Counter(request.kind for request in itertools.islice(order, 40_960))
    assert abs(counts[0] / counts[1] - 5 / 3) < 0.01
    assert counts[2] > 0  # at least once


def test_requests_of_a_kind_are_used_in_turn():
    order = workload([1, 1], [3, 50]).order(0)
    counts = Counter(request.number for request in itertools.islice(order, 4096))
    assert set(counts) == set(range(53))
    assert max(counts[n] for n in range(3)) - min(counts[n] for n in range(3)) <= 1


def test_a_large_pool_is_used_completely():
    order = workload([1], [10_000]).order(0)
    assert len({request.number for request in itertools.islice(order, 12_288)}) == 10_000


def test_the_seed_decides_the_order():
    def first(seed):
        return [r.kind for r in itertools.islice(workload([1, 1], [2, 2]).order(seed), 64)]

    assert first(1) == first(1)
    assert first(1) != first(2)
