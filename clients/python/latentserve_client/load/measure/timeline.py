"""Statistics over time: slots of equal width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from latentserve_client.load.measure.call_records import Records, column
from latentserve_client.load.measure.histogram import COARSE, Histogram

_MAX_BUCKETS = 600


@dataclass
class TimeBucket:
    """What ended in one piece of time."""

    latency: Histogram = field(default_factory=lambda: Histogram(COARSE))
    good: int = 0
    rows: int = 0
    errors: int = 0

    def merge(self, other: TimeBucket) -> None:
        """Add another one."""
        self.latency.merge(other.latency)
        self.good += other.good
        self.rows += other.rows
        self.errors += other.errors


class Timeline:
    """Slots of equal width, by when calls ended; they widen when there are too many."""

    def __init__(self, start_ns: int, width_s: float, *, may_widen: bool = True) -> None:
        self.start_ns = start_ns
        self.width_s = width_s
        self.buckets: list[TimeBucket] = []
        self._may_widen = may_widen

    def add(self, rows: Records) -> None:
        """Add calls, good and bad."""
        since_ns = column(rows, "end_ns") - self.start_ns
        rows, since_ns = rows[since_ns >= 0], since_ns[since_ns >= 0]
        numbers = since_ns // int(self.width_s * 1e9)
        while self._may_widen and len(numbers) and numbers.max() >= _MAX_BUCKETS:
            self._widen()
            numbers //= 2
        for number in np.unique(numbers).tolist():
            while len(self.buckets) <= number:
                self.buckets.append(TimeBucket())
            self._add_to(self.buckets[number], rows[numbers == number])

    @staticmethod
    def _add_to(slot: TimeBucket, rows: Records) -> None:
        good = rows[column(rows, "code") == 0]
        slot.latency.add(column(good, "end_ns") - column(good, "intended_ns"))
        slot.good += len(good)
        slot.rows += int(column(good, "rows").sum())
        slot.errors += len(rows) - len(good)

    def _widen(self) -> None:
        for first, second in zip(self.buckets[::2], self.buckets[1::2], strict=False):
            first.merge(second)
        self.buckets = self.buckets[::2]
        self.width_s *= 2
