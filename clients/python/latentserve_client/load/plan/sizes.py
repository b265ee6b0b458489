"""Distribution of the number of rows per request.

16          constant 16
1-64        uniform from 1 to 64
1|16|64     uniform over these values
8*1|2*64    1 with weight 8, 64 with weight 2
~16         geometric with mean 16: many small requests, few large ones
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_INTEGER = re.compile(r"[1-9]\d{0,8}")


class BadSize(ValueError):
    """The text of a size distribution is malformed."""


@dataclass(frozen=True, slots=True)
class SizeDistribution:
    """Distribution of positive integers."""

    text: str  # as given by the user
    choices: tuple[int, ...] = ()  # empty for a geometric distribution
    weights: tuple[float, ...] = ()
    mean: float = 0.0  # of a geometric distribution

    @property
    def is_fixed(self) -> bool:
        """Whether all samples are equal."""
        return len(self.choices) == 1

    @property
    def largest(self) -> int | None:
        """The upper bound of the distribution; None if it is unbounded."""
        return max(self.choices) if self.choices else None

    def sample(self, count: int, limit: int, rng: np.random.Generator) -> list[int]:
        """Return `count` sizes, clipped to `limit`."""
        if self.choices:
            weights = np.array(self.weights)
            # Quantiles instead of independent samples: even a small pool has the right proportions.
            points = (np.arange(count) + 0.5) / count
            edges = np.cumsum(weights / weights.sum())
            positions = np.searchsorted(edges, points).clip(max=len(self.choices) - 1)
            sizes = np.array(self.choices)[positions]
        else:
            points = (np.arange(count) + 0.5) / count
            stay = 1 - 1 / self.mean if self.mean > 1 else 0.0
            sizes = np.ones(count) if stay == 0 else np.ceil(np.log1p(-points) / np.log(stay))
        rng.shuffle(sizes)
        return [int(size) for size in np.clip(sizes, 1, limit)]


def parse_sizes(text: str) -> SizeDistribution:
    """Parse a size or a distribution. Raises BadSize."""
    if text.startswith("~"):
        return SizeDistribution(text, mean=float(_integer(text[1:], text)))
    choices: list[int] = []
    weights: list[float] = []
    for part in text.split("|"):
        weight, star, size = part.rpartition("*")
        times = float(_integer(weight, text)) if star else 1.0
        low_text, dash, high_text = size.partition("-")
        low = _integer(low_text, text)
        high = _integer(high_text, text) if dash else low
        if high < low:
            raise BadSize(f"{text!r}: {high} is below {low}")
        for number in range(low, high + 1):
            choices.append(number)
            weights.append(times / (high - low + 1))
    return SizeDistribution(text, tuple(choices), tuple(weights))


def _integer(text: str, whole: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise BadSize(
            f"{whole!r}: expected a number of rows like 16, 1-64, 1|16|64, 8*1|2*64 or ~16"
        )
    return int(text)
