"""95 % confidence intervals from the windows of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
MIN_WINDOWS = 5  # required before a run counts as stable


@dataclass(frozen=True, slots=True)
class ConfidenceInterval:
    """Mean over windows, and half-width of its 95 % confidence interval."""

    mean: float
    half_width: float  # infinite for fewer than two windows
    windows: int

    @property
    def relative(self) -> float:
        """Half-width as a share of the mean."""
        return self.half_width / self.mean if self.mean > 0 else math.inf

    def overlaps(self, other: ConfidenceInterval) -> bool:
        """Return whether the two intervals intersect."""
        return abs(self.mean - other.mean) <= self.half_width + other.half_width


def confidence_interval(values: Sequence[float]) -> ConfidenceInterval:
    """Return the confidence interval of the mean of these windows; ignores NaN.

    Assumes independent windows. Windows much shorter than the disturbances of the server are
    correlated, and the interval is then too narrow.
    """
    present = np.array([value for value in values if not math.isnan(value)])
    count = len(present)
    if count == 0:
        return ConfidenceInterval(math.nan, math.inf, 0)
    mean = float(present.mean())
    if count == 1:
        return ConfidenceInterval(mean, math.inf, 1)
    error = float(present.std(ddof=1)) / math.sqrt(count)
    return ConfidenceInterval(mean, student_t(count - 1) * error, count)


def student_t(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    return _T[degrees - 1] if degrees <= len(_T) else 1.96 + 2.4 / degrees
