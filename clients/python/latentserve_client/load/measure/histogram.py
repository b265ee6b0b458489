"""Latency histogram with buckets of equal ratio and bounded memory.

Like an HDR histogram: with buckets 0.2 % wide, each percentile is exact to 0.1 % in 90 KB, for any
number of calls. Count, sum, minimum and maximum are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINE = 1.002  # bucket ratio for reported percentiles
COARSE = 1.01  # bucket ratio for the many histograms of a timeline
_LOWEST_NS = 1_000.0  # 1 microsecond
_HIGHEST_NS = 3.6e12  # 1 hour


@dataclass
class Histogram:
    """Histogram of durations in nanoseconds."""

    ratio: float = FINE
    count: int = 0
    sum_ns: float = 0.0
    min_ns: int = 0
    max_ns: int = 0
    buckets: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = math.ceil(math.log(_HIGHEST_NS / _LOWEST_NS) / math.log(self.ratio)) + 1
        self.buckets = np.zeros(size, np.int64)

    def add(self, durations_ns: NDArray[Any]) -> None:
        """Count durations [n] in nanoseconds."""
        if not len(durations_ns):
            return
        low, high = int(durations_ns.min()), int(durations_ns.max())
        self.min_ns = min(self.min_ns, low) if self.count else low
        self.max_ns = max(self.max_ns, high)
        self.count += len(durations_ns)
        self.sum_ns += float(durations_ns.sum())
        ratios = np.clip(durations_ns, _LOWEST_NS, _HIGHEST_NS) / _LOWEST_NS
        indices = (np.log(ratios) / math.log(self.ratio)).astype(np.int64)
        self.buckets += np.bincount(indices, minlength=len(self.buckets))

    def merge(self, other: Histogram) -> None:
        """Add the counts of a histogram with the same ratio."""
        if not other.count:
            return
        self.min_ns = min(self.min_ns, other.min_ns) if self.count else other.min_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.buckets += other.buckets

    @property
    def mean_ns(self) -> float:
        """Mean in nanoseconds; NaN if the histogram is empty."""
        return self.sum_ns / self.count if self.count else math.nan

    def percentile_ns(self, percent: float) -> float:
        """Return the nearest-rank percentile; 100 is the maximum. NaN if the histogram is empty."""
        if not self.count:
            return math.nan
        if percent >= 100:
            return float(self.max_ns)
        rank = max(math.ceil(percent / 100 * self.count), 1)
        index = int(np.searchsorted(np.cumsum(self.buckets), rank))
        middle = _LOWEST_NS * self.ratio ** (index + 0.5)
        return float(min(max(middle, self.min_ns), self.max_ns))

    def bars(self, number: int) -> list[tuple[float, float, int]]:
        """Return about `number` bars (from ns, to ns, count) that cover all non-empty buckets."""
        used = np.flatnonzero(self.buckets)
        if not len(used):
            return []
        first, last = int(used[0]), int(used[-1])
        width = max(math.ceil((last - first + 1) / number), 1)
        return [
            (
                _LOWEST_NS * self.ratio**start,
                _LOWEST_NS * self.ratio ** (start + width),
                int(self.buckets[start : start + width].sum()),
            )
            for start in range(first, last + 1, width)
        ]
