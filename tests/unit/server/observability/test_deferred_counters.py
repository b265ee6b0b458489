"""Counters and histograms under concurrent updates."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from latentserve_server.observability.deferred_counters import (
    FOLD_AT,
    Counter,
    Histogram,
    LabelledCounter,
)

THREADS = 8
EACH = 20 * FOLD_AT + 7


def from_many_threads(add: object, read: object) -> list[object]:
    """Call `add` from many threads while another thread reads; return all values it read."""
    found: list[object] = []
    ended = threading.Event()

    def work() -> None:
        for _ in range(EACH):
            add()  # type: ignore[operator]

    def watch() -> None:
        while not ended.is_set():
            found.append(read())  # type: ignore[operator]

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    ended.set()
    watcher.join()
    return found


def test_a_counter_loses_nothing_and_never_decreases() -> None:
    counter = Counter()
    seen = from_many_threads(counter.add, counter.read)
    assert counter.read() == THREADS * EACH
    assert seen == sorted(seen)  # type: ignore[type-var]


def test_a_histogram_loses_nothing_and_never_decreases() -> None:
    histogram = Histogram((1.0, 2.0))
    seen = from_many_threads(lambda: histogram.observe(1.5), histogram.read)
    assert histogram.read() == ([0, THREADS * EACH, 0], 1.5 * THREADS * EACH)
    assert seen == sorted(seen)  # type: ignore[type-var]


class Racing(list[Any]):
    """A list to which another thread appends directly after its length was read."""

    def __init__(self, values: Iterable[Any], late: Any) -> None:
        super().__init__(values)
        self.late = [late]

    def __len__(self) -> int:
        length = super().__len__()
        if self.late:
            self.append(self.late.pop())
        return length


def test_a_value_appended_during_a_fold_counts_in_the_next() -> None:
    counter, histogram = Counter(), Histogram((1.0,))
    counter._pending = Racing([None] * 3, None)
    histogram._pending = Racing([0.5] * 3, 2.0)
    assert (counter.read(), counter.read(), counter.read()) == (3, 4, 4)
    assert histogram.read() == ([3, 0], 1.5)
    assert histogram.read() == histogram.read() == ([3, 1], 3.5)


def test_pending_values_are_bounded_without_a_scrape() -> None:
    counter, histogram = Counter(), Histogram((1.0,))
    for _ in range(5 * FOLD_AT):
        counter.add()
        histogram.observe(0.5)
    assert len(counter._pending) < FOLD_AT
    assert len(histogram._pending) < FOLD_AT
    assert counter.read() == 5 * FOLD_AT
    assert histogram.read()[0] == [5 * FOLD_AT, 0]


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (1.0, 0), (1.0000001, 1), (10.0, 1), (10.5, 2), (1e9, 2), (-1.0, 0)],
)
def test_the_upper_bound_of_a_bucket_is_inclusive_as_in_prometheus(
    value: float, bucket: int
) -> None:
    histogram = Histogram((1.0, 10.0))
    histogram.observe(value)
    counts, total = histogram.read()
    assert counts == [int(index == bucket) for index in range(3)]
    assert total == value


def test_a_labelled_counter_counts_by_labels() -> None:
    counts = LabelledCounter()
    counts.add("sample", "queue_full")
    counts.add("sample", "queue_full")
    counts.add("encode", "deadline", count=5)
    assert counts.read() == {("sample", "queue_full"): 2, ("encode", "deadline"): 5}
