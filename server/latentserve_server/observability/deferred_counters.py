"""Counts that cost a call next to nothing: kept as they come, added up when somebody looks.

An event is appended to a list, which is one atomic operation without a lock, whichever thread
it comes from. Now and then, and at every scrape, what has gathered is folded into totals: a few
hundred values at a time, which costs much less for each than a lock and a search would.

Folding copies what the list has and then deletes exactly as many from its front; whatever is
appended meanwhile stays for the next time. So nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

FOLD_AT = 512
"""So many values gather, at most, before the thread that adds the next folds them."""


class Counter:
    """A number that only grows. `add` is safe from any thread, and so is `read`."""

    __slots__ = ("_folding", "_pending", "_total")

    def __init__(self) -> None:
        self._pending: list[None] = []
        self._folding = threading.Lock()
        self._total = 0

    def add(self) -> None:
        """Count one."""
        pending = self._pending
        pending.append(None)
        if len(pending) >= FOLD_AT and self._folding.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._folding.release()

    def read(self) -> int:
        """Return how many there were."""
        with self._folding:
            self._fold()
            return self._total

    def _fold(self) -> None:
        count = len(self._pending)
        del self._pending[:count]
        self._total += count


class Histogram:
    """How many values fell into each bucket, and their sum. Safe from any thread.

    Args:
        bounds: the largest value of each bucket, ascending; one more takes what is larger.
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
        """Return how many values each bucket has, and the sum of all."""
        with self._folding:
            self._fold()
            return self._counts.tolist(), self._sum

    def _fold(self) -> None:
        count = len(self._pending)
        values = np.array(self._pending[:count], dtype=np.float64)
        del self._pending[:count]
        places = np.searchsorted(self._bounds, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())


class LabelledCounter:
    """Numbers that only grow, by labels; for what is rare. Safe from any thread."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, count: int = 1) -> None:
        """Count one, or some."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + count

    def read(self) -> dict[tuple[str, ...], int]:
        """Return how many there were of each."""
        with self._lock:
            return dict(self._counts)
