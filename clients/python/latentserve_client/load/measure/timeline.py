"""Timeline of a run: statistics in time buckets of equal width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from latentserve_client.load.measure.call_records import Records, column
from latentserve_client.load.measure.histogram import COARSE, Histogram

_MAX_BUCKETS = 600


@dataclass
class TimeBucket:
    """Statistics of the calls that ended in one period of time."""

    latency: Histogram = field(default_factory=lambda: Histogram(COARSE))
    successes: int = 0
    rows: int = 0
    errors: int = 0

    def merge(self, other: TimeBucket) -> None:
        """Add the statistics of another bucket."""
        self.latency.merge(other.latency)
        self.successes += other.successes
        self.rows += other.rows
        self.errors += other.errors


class Timeline:
    """Time buckets by end time of the calls; the width doubles when there are too many."""

    def __init__(self, start_ns: int, width_s: float, *, may_widen: bool = True) -> None:
        self.start_ns = start_ns
        self.width_s = width_s
        self.buckets: list[TimeBucket] = []
        self._may_widen = may_widen

    def add(self, records: Records) -> None:
        """Add the records of finished calls, successful or not."""
        since_ns = column(records, "end_ns") - self.start_ns
        records, since_ns = records[since_ns >= 0], since_ns[since_ns >= 0]
        numbers = since_ns // int(self.width_s * 1e9)
        while self._may_widen and len(numbers) and numbers.max() >= _MAX_BUCKETS:
            self._widen()
            numbers //= 2
        for number in np.unique(numbers).tolist():
            while len(self.buckets) <= number:
                self.buckets.append(TimeBucket())
            self._add_to(self.buckets[number], records[numbers == number])

    @staticmethod
    def _add_to(bucket: TimeBucket, records: Records) -> None:
        succeeded = records[column(records, "code") == 0]
        bucket.latency.add(column(succeeded, "end_ns") - column(succeeded, "intended_ns"))
        bucket.successes += len(succeeded)
        bucket.rows += int(column(succeeded, "rows").sum())
        bucket.errors += len(records) - len(succeeded)

    def _widen(self) -> None:
        for first, second in zip(self.buckets[::2], self.buckets[1::2], strict=False):
            first.merge(second)
        self.buckets = self.buckets[::2]
        self.width_s *= 2
