"""When the calls of an open loop are meant to be sent, whatever the server does.

A profile says how the rate goes over time; arrivals turn it into points in time. Both kinds of
arrivals are the same idea: the expected number of calls until t is L(t), the integral of the rate.
Constant arrivals are where L reaches 0, 1, 2, ...; Poisson arrivals are where L reaches the sums of
exponential variates of mean 1 (the time change theorem), which is right for any rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 1024


class BadProfile(ValueError):
    """The text of a rate cannot be read."""


@dataclass(frozen=True, slots=True)
class RateSegment:
    """A time in which the rate goes in a straight line."""

    duration_s: float  # seconds; infinite for the last one of a constant rate
    start_per_s: float  # calls per second at its start
    end_per_s: float  # calls per second at its end

    @property
    def calls(self) -> float:
        """The expected number of calls."""
        return (self.start_per_s + self.end_per_s) / 2 * self.duration_s

    def time_of(self, calls: float) -> float:
        """Return the seconds into the segment at which this many calls are expected."""
        if self.start_per_s == self.end_per_s:
            return calls / self.start_per_s
        slope = (self.end_per_s - self.start_per_s) / self.duration_s
        # start t + slope t^2 / 2 = calls, in the form that does not cancel for small slopes.
        root = math.sqrt(max(self.start_per_s**2 + 2 * slope * calls, 0.0))
        return 2 * calls / (self.start_per_s + root) if calls else 0.0


@dataclass(frozen=True, slots=True)
class RateProfile:
    """The rate over time."""

    segments: tuple[RateSegment, ...]

    @property
    def duration_s(self) -> float:
        """Seconds until the last segment ends."""
        return sum(segment.duration_s for segment in self.segments)

    @property
    def is_constant(self) -> bool:
        """Whether the rate is the same all the time."""
        return (
            len({s.start_per_s for s in self.segments} | {s.end_per_s for s in self.segments}) == 1
        )

    def with_warm_up(self, warm_up_s: float) -> RateProfile:
        """Return the profile behind a warm-up at its first rate."""
        if not warm_up_s:
            return self
        rate = self.segments[0].start_per_s or max(s.end_per_s for s in self.segments)
        return RateProfile((RateSegment(warm_up_s, rate, rate), *self.segments))

    def scaled_to(self, per_s: float) -> RateProfile:
        """Return a constant rate of the same duration."""
        return RateProfile((RateSegment(self.duration_s, per_s, per_s),))

    def arrivals(self, kind: str, seed: int) -> Iterator[float]:
        """Return seconds from the start at which calls are meant to be sent, in order.

        `kind` is "constant" or "poisson". Ends with the profile.
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
    """Read "200", "100,200,400" (steps) or "100-500" (a ramp), or these with seconds: "100-500:30".

    Segments without seconds share what is left of `duration_s` equally. Raises BadProfile.
    """
    parts = [part.partition(":") for part in text.split(",")]
    stated = [_positive(seconds, text) for _, colon, seconds in parts if colon]
    silent = len(parts) - len(stated)
    left_s = duration_s - sum(stated)
    if silent and left_s <= 0:
        raise BadProfile(
            f"{text!r}: its stated seconds are {sum(stated):g} and leave none of the "
            f"{duration_s:g} s for the rest"
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
    draws = np.random.default_rng(seed)
    total = 0.0
    while True:
        block = total + np.cumsum(draws.standard_exponential(_BLOCK))
        yield from block.tolist()
        total = float(block[-1])


def _positive(text: str, whole: str) -> float:
    number = _not_negative(text, whole)
    if number == 0:
        raise BadProfile(f"{whole!r}: 0 seconds")
    return number


def _not_negative(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadProfile(
            f"{whole!r}: expected calls per second like 200, steps like 100,200, a ramp like "
            "100-500, each with seconds or without: 100-500:30,500:60"
        )
    return number
