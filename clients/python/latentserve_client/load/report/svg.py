"""Charts as inline SVG: lines and bars on linear or logarithmic axes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 26, 44
_TICKS = 6


@dataclass(frozen=True)
class Line:
    """Line through points, with a name for the legend."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str  # CSS class of the page: "c1", "c2", ...
    labels: Sequence[str] = ()  # text at each point
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """Bar from `low` to `high` on the x axis."""

    low: float
    high: float
    value: float


@dataclass
class Axis:
    """Axis with a range and ticks."""

    label: str
    low: float
    high: float
    logarithmic: bool = False
    ticks: list[float] = field(init=False)

    def __post_init__(self) -> None:
        if not self.high > self.low:
            self.high = self.low * 2 if self.low > 0 else self.low + 1
        self.ticks = _log_ticks(self.low, self.high) if self.logarithmic else self._round()

    def _round(self) -> list[float]:
        ticks = linear_ticks(self.low, self.high)
        self.low, self.high = min(ticks[0], self.low), max(ticks[-1], self.high)
        return ticks

    def share(self, value: float) -> float:
        """Return the position of a value on the axis, 0 to 1."""
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(max(value, self.low)) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def chart(
    title: str,
    x: Axis,
    y: Axis,
    *,
    lines: Sequence[Line] = (),
    bars: Sequence[Bar] = (),
    marks: Sequence[tuple[float, str]] = (),
    level: tuple[float, str] | None = None,
) -> str:
    """Return a chart as an HTML figure.

    `marks` are labelled vertical lines at values of x, `level` is a labelled horizontal line at a
    value of y.
    """
    parts = [_frame(x, y)]
    for bar in bars:
        left, right = _x(x, bar.low), _x(x, bar.high)
        top, width = _y(y, bar.value), max(right - left - 1, 1)
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{_y(y, y.low) - top:.1f}"><title>{bar.low:.4g} to {bar.high:.4g}: '
            f"{bar.value:g}</title></rect>"
        )
    if level is not None and y.low <= level[0] <= y.high:
        at = _y(y, level[0])
        parts.append(
            f'<line class="level" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>'
            f'<text class="mark" x="{_LEFT + 4}" y="{at - 4:.1f}">{html.escape(level[1])}</text>'
        )
    parts += [_line(x, y, line) for line in lines]
    parts += [_mark(x, number, *mark) for number, mark in enumerate(marks)]
    parts.append(_legend(lines))
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg></figure>'
    )


def linear_ticks(low: float, high: float) -> list[float]:
    """Return round tick values that enclose `low` to `high`."""
    raw = (high - low) / _TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [
        factor * 10.0**exponent
        for exponent in exponents
        for factor in factors
        if low * 0.999 <= factor * 10.0**exponent <= high * 1.001
    ]


def _frame(x: Axis, y: Axis) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>'
            f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{at + 4:.1f}">{tick:g}</text>'
        )
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>'
            f'<text class="tick" text-anchor="middle" x="{at:.1f}" y="{bottom + 16}">'
            f"{tick:g}</text>"
        )
    parts.append(
        f'<text class="label" text-anchor="middle" x="{(_LEFT + right) / 2}" y="{HEIGHT - 8}">'
        f"{html.escape(x.label)}</text>"
        f'<text class="label" x="4" y="14">{html.escape(y.label)}</text>'
    )
    return "".join(parts)


def _line(x: Axis, y: Axis, line: Line) -> str:
    at = [(_x(x, px), _y(y, py)) for px, py in line.points]
    if not at:
        return ""
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in at)
    text = f'<polyline class="line {line.colour}" points="{path}"/>'
    if line.dots:
        text += "".join(
            f'<circle class="dot {line.colour}" cx="{left:.1f}" cy="{top:.1f}" r="3.5"/>'
            for left, top in at
        )
    for (left, top), label in zip(at, line.labels, strict=False):
        # At the right edge, place the label to the left, so that it is not cut off.
        anchor, shift = ("end", -6) if left > WIDTH - 80 else ("start", 6)
        text += (
            f'<text class="point" text-anchor="{anchor}" x="{left + shift:.1f}" '
            f'y="{top - 6:.1f}">{html.escape(label)}</text>'
        )
    return text


def _mark(x: Axis, number: int, value: float, name: str) -> str:
    at = _x(x, value)
    # Stack the names, so that close marks do not overlap.
    top = _TOP + 10 + 13 * number
    anchor, shift = ("end", -4) if at > WIDTH / 2 else ("start", 4)
    return (
        f'<line class="level" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="mark" text-anchor="{anchor}" x="{at + shift:.1f}" y="{top}">'
        f"{html.escape(name)}</text>"
    )


def _legend(lines: Sequence[Line]) -> str:
    parts, left = [], WIDTH - _RIGHT
    for line in reversed(lines):
        left -= 34 + 7 * len(line.name)
        parts.append(
            f'<line class="line {line.colour}" x1="{left}" y1="12" x2="{left + 14}" y2="12"/>'
            f'<text class="tick" x="{left + 18}" y="16">{html.escape(line.name)}</text>'
        )
    return "".join(parts)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + min(max(axis.share(value), 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - min(max(axis.share(value), 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)
