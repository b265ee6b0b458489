"""How many rows a request has: a number, or a distribution.

16          always 16
1-64        each of 1 to 64 equally often
1|16|64     each of these equally often
8*1|2*64    1 eight times as often as 64 twice
~16         geometric with mean 16: many small ones, few large ones
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_INTEGER = re.compile(r"[1-9]\d{0,8}")


class BadSize(ValueError):
    """The text of a size cannot be read."""


@dataclass(frozen=True, slots=True)
class SizeDistribution:
    """A distribution of whole numbers from 1 on."""

    text: str  # as it was written
    choices: tuple[int, ...] = ()  # empty for a geometric one
    weights: tuple[float, ...] = ()
    mean: float = 0.0  # of a geometric one

    @property
    def is_fixed(self) -> bool:
        """Whether every draw is the same."""
        return len(self.choices) == 1

    @property
    def largest(self) -> int | None:
        """The largest size that can be drawn; None where there is no largest."""
        return max(self.choices) if self.choices else None

    def draw(self, count: int, limit: int, draws: np.random.Generator) -> list[int]:
        """Return `count` sizes; those above `limit` are cut to it."""
        if self.choices:
            weights = np.array(self.weights)
            # Quantiles rather than independent draws: a small pool has the right proportions, too.
            points = (np.arange(count) + 0.5) / count
            edges = np.cumsum(weights / weights.sum())
            positions = np.searchsorted(edges, points).clip(max=len(self.choices) - 1)
            sizes = np.array(self.choices)[positions]
        else:
            points = (np.arange(count) + 0.5) / count
            stay = 1 - 1 / self.mean if self.mean > 1 else 0.0
            sizes = np.ones(count) if stay == 0 else np.ceil(np.log1p(-points) / np.log(stay))
        draws.shuffle(sizes)
        return [int(size) for size in np.clip(sizes, 1, limit)]


def parse_sizes(text: str) -> SizeDistribution:
    """Read a size or a distribution; BadSize for anything else."""
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
