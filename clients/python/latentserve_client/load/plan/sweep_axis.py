"""Axis of a sweep: the parameter that varies, and its values."""

from __future__ import annotations

from dataclasses import dataclass

AXES = ("concurrency", "rate")


class BadSweep(ValueError):
    """The text of a sweep is malformed."""


@dataclass(frozen=True, slots=True)
class SweepAxis:
    """Parameter that varies, and its values."""

    name: str  # "concurrency" or "rate"
    points: tuple[float, ...]  # ascending

    @property
    def is_whole(self) -> bool:
        """Whether the values must be integers."""
        return self.name == "concurrency"


def parse_sweep(text: str) -> SweepAxis:
    """Parse "concurrency=1,2,4", "rate=100..1600" (doubling) or "rate=100..500:100" (steps).

    Raises BadSweep.
    """
    name, equals, points = text.partition("=")
    if name not in AXES or not equals:
        raise BadSweep(f"{text!r}: expected concurrency=1,2,4,8 or rate=100..1600 (doubling)")
    if ".." in points:
        span, colon, step = points.partition(":")
        low_text, _, high_text = span.partition("..")
        low, high = _number(low_text, text), _number(high_text, text)
        if high < low:
            raise BadSweep(f"{text!r}: {high:g} is below {low:g}")
        numbers = [low]
        while numbers[-1] < high:
            following = numbers[-1] + _number(step, text) if colon else numbers[-1] * 2
            numbers.append(min(following, high))
    else:
        numbers = sorted({_number(part, text) for part in points.split(",")})
    if name == "concurrency" and any(number != int(number) for number in numbers):
        raise BadSweep(f"{text!r}: a concurrency must be an integer")
    return SweepAxis(name, tuple(numbers))


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise BadSweep(f"{whole!r}: {text!r} is not a number above 0")
    return number
