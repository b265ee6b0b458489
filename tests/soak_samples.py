"""Resource measurements of a soak test, and the evaluation of their growth."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitals import slope

MAX_MB_PER_10K_CALLS = 1.0
# Threads of just replaced models and just closed connections may still exist.
MAX_GROWTH = 6.0
WARM_UP = 1 / 3
"""Fraction of all calls in which caches, pools and arenas may still fill."""


@dataclass(frozen=True)
class Sample:
    """One measurement of the server, after this number of seconds and calls."""

    seconds: float
    calls: int
    resident_mb: float
    threads: int
    files: int


@dataclass(frozen=True)
class Verdict:
    """Growth of the server's memory, threads and open files after the warm-up.

    `growth` is the mean of the last third of the samples minus the mean of the first third.
    """

    calls: int
    mb_per_10k_calls: float
    threads_growth: float
    files_growth: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Verdict:
        """Evaluate samples in order of time. Raises ValueError for too few samples."""
        if not samples:
            raise ValueError("there are no samples")
        first = samples[-1].calls * WARM_UP
        warm = [sample for sample in samples if sample.calls >= first]
        return cls(
            samples[-1].calls,
            slope([(sample.calls / 10_000, sample.resident_mb) for sample in warm]),
            _growth([sample.threads for sample in warm]),
            _growth([sample.files for sample in warm]),
        )

    @property
    def problems(self) -> list[str]:
        """Texts about growth over the limits."""
        found = []
        if self.mb_per_10k_calls >= MAX_MB_PER_10K_CALLS:
            found.append(f"memory grows by {self.mb_per_10k_calls:.2f} MB per 10,000 calls")
        for name, growth in (("threads", self.threads_growth), ("files", self.files_growth)):
            if growth > MAX_GROWTH:
                found.append(f"open {name} grew by {growth:.1f}")
        return found


def write_csv(path: Path, samples: Sequence[Sample]) -> None:
    """Write the samples, one line each, for a plot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Sample))
        writer.writerows(dataclasses.astuple(sample) for sample in samples)


def _growth(numbers: Sequence[float]) -> float:
    third = max(1, len(numbers) // 3)
    return statistics.fmean(numbers[-third:]) - statistics.fmean(numbers[:third])
