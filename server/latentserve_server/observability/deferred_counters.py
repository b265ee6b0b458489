"""Counters and histograms that buffer events without a lock and aggregate them later.

An event is appended to a list, which is atomic from any thread. When `FOLD_AT` values are pending,
and at every scrape, the list is folded into totals. Folding a few hundred values at a time costs
much less per value than a lock and a bucket search for each event.

Folding copies the first n values and then deletes n values from the front, so that values appended
in the meantime stay for the next fold. No value is lost or counted twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

FOLD_AT = 512
"""Number of pending values at which the thread that adds a value folds them."""


class Counter:
    """A monotonic counter. `add` and `read` are safe from any thread."""

    __slots__ = ("_folding", "_pending", "_total")

    def __init__(self) -> None:
        self._pending: list[None] = []
        self._folding = threading.Lock()
        self._total = 0

    def add(self) -> None:
        """Count one event."""
        pending = self._pending
        pending.append(None)
        if len(pending) >= FOLD_AT and self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def read(self) -> int:
        """Return the total."""
        with self._folding:
            self._fold()
            return self._total

    def _fold(self) -> None:
        count = len(self._pending)
        del self._pending[:count]
        self._total += count


class Histogram:
    """Counts of values by bucket, and their sum. Safe from any thread.

    Args:
        bounds: upper bound (inclusive) of each bucket, ascending; a last bucket is unbounded.
    """

    __slots__ = ("_bounds", "_counts", "_folding", "_pending", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._pending: list[float] = []
        self._folding = threading.Lock()

    def observe(self, value: float) -> None:
        """Add a value."""
        pending = self._pending
        pending.append(value)
        if len(pending) >= FOLD_AT and self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def read(self) -> tuple[list[int], float]:
        """Return the count of each bucket, and the sum of all values."""
        with self._folding:
            self._fold()
            return self._counts.tolist(), self._sum

    def _fold(self) -> None:
        count = len(self._pending)
        values = np.array(self._pending[:count], dtype=np.float64)
        del self._pending[:count]
        buckets = np.searchsorted(self._bounds, values, side="left")
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._sum += float(values.sum())


class LabelledCounter:
    """Monotonic counters by labels, with a lock: for rare events. Safe from any thread."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, count: int = 1) -> None:
        """Add `count` to the counter with these labels."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + count

    def read(self) -> dict[tuple[str, ...], int]:
        """Return the total by labels."""
        with self._lock:
            return dict(self._counts)
