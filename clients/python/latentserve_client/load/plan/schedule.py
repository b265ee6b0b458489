"""Arrival schedule of an open loop: intended send times, independent of the server.

A rate profile gives calls per second over time; arrivals are points in time. Both kinds of arrivals
use the integral of the rate, L(t), the expected number of calls until t. Constant arrivals are the
times at which L reaches 0, 1, 2, ...; Poisson arrivals are the times at which L reaches the
cumulative sums of exponential variates of mean 1 (the time change theorem, valid for any rate).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 1024


class BadProfile(ValueError):
    """The text of a rate profile is malformed."""


@dataclass(frozen=True, slots=True)
class RateSegment:
    """Period of a profile in which the rate is linear in time."""

    duration_s: float  # seconds
    start_per_s: float  # calls per second at the start
    end_per_s: float  # calls per second at the end

    @property
    def calls(self) -> float:
        """Expected number of calls."""
        return (self.start_per_s + self.end_per_s) / 2 * self.duration_s

    def time_of(self, calls: float) -> float:
        """Return the seconds into the segment at which this many calls are expected."""
        if self.start_per_s == self.end_per_s:
            return calls / self.start_per_s
        slope = (self.end_per_s - self.start_per_s) / self.duration_s
        # Solves start t + slope t^2 / 2 = calls without cancellation for small slopes.
        root = math.sqrt(max(self.start_per_s**2 + 2 * slope * calls, 0.0))
        return 2 * calls / (self.start_per_s + root) if calls else 0.0


@dataclass(frozen=True, slots=True)
class RateProfile:
    """Rate over time."""

    segments: tuple[RateSegment, ...]

    @property
    def duration_s(self) -> float:
        """Seconds until the last segment ends."""
        return sum(segment.duration_s for segment in self.segments)

    @property
    def is_constant(self) -> bool:
        """Whether the rate does not change."""
        return (
            len({s.start_per_s for s in self.segments} | {s.end_per_s for s in self.segments}) == 1
        )

    def with_warm_up(self, warm_up_s: float) -> RateProfile:
        """Return the profile preceded by a warm-up at its first rate.

        A profile that starts at 0 warms up at its highest rate.
        """
        if not warm_up_s:
            return self
        rate = self.segments[0].start_per_s or max(s.end_per_s for s in self.segments)
        return RateProfile((RateSegment(warm_up_s, rate, rate), *self.segments))

    def arrivals(self, kind: str, seed: int) -> Iterator[float]:
        """Yield the intended send times in seconds from the start, in ascending order.

        `kind` is "constant" or "poisson". The times end with the profile.
        """
        expected = _constant() if kind == "constant" else _poisson(seed)
        return self._times(expected)

    def _times(self, expected: Iterable[float]) -> Iterator[float]:
        segments = iter(self.segments)
        segment = next(segments)
        begun_s = before = 0.0
        for calls in expected:
            while calls - before >= segment.calls:
                before += segment.calls
                begun_s += segment.duration_s
                following = next(segments, None)
                if following is None:
                    return
                segment = following
            yield begun_s + segment.time_of(calls - before)


def parse_profile(text: str, duration_s: float) -> RateProfile:
    """Parse "200", "100,200,400" (steps) or "100-500" (a ramp).

    Each segment may state its seconds, as in "100-500:30"; the others share the rest of
    `duration_s` equally. Raises BadProfile.
    """
    parts = [part.partition(":") for part in text.split(",")]
    stated = [_positive(seconds, text) for _, colon, seconds in parts if colon]
    silent = len(parts) - len(stated)
    left_s = duration_s - sum(stated)
    if silent and left_s <= 0:
        raise BadProfile(
            f"{text!r}: the given durations add up to {sum(stated):g} s and leave none of the "
            f"{duration_s:g} s for the other segments"
        )
    segments = []
    for rates, colon, seconds in parts:
        start, dash, end = rates.partition("-")
        start_per_s = _not_negative(start, text)
        end_per_s = _not_negative(end, text) if dash else start_per_s
        if start_per_s == end_per_s == 0:
            raise BadProfile(f"{text!r}: a rate of 0 sends nothing")
        segments.append(
            RateSegment(float(seconds) if colon else left_s / silent, start_per_s, end_per_s)
        )
    return RateProfile(tuple(segments))


def _constant() -> Iterator[float]:
    calls = 0
    while True:
        yield float(calls)
        calls += 1


def _poisson(seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    total = 0.0
    while True:
        block = total + np.cumsum(rng.standard_exponential(_BLOCK))
        yield from block.tolist()
        total = float(block[-1])


def _positive(text: str, whole: str) -> float:
    number = _not_negative(text, whole)
    if number == 0:
        raise BadProfile(f"{whole!r}: a segment of 0 seconds")
    return number


def _not_negative(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadProfile(
            f"{whole!r}: expected calls per second like 200, steps like 100,200, a ramp like "
            "100-500, each with or without seconds: 100-500:30,500:60"
        )
    return number
