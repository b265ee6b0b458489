"""Conditions that fail a run: `p99>20ms`, `errors>0`, `rate<1000`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONDITION = re.compile(r"\s*([a-z_][\w.]*)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*(us|µs|ms|s|%|/s)?\s*")
_LATENCIES = ("mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")
_TO_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
# Figures besides the latencies, with the unit that each understands.
_FIGURES = {
    "rate": ("rate_per_s", "/s"),
    "rows": ("rows_per_s", "/s"),
    "calls": ("calls", None),
    "errors": ("errors", None),
    "error_share": ("error_share", "%"),
    "retries": ("retries", None),
    "late": ("late.calls", None),
    "late_share": ("late.share", "%"),
    "wrong": ("validation.wrong", None),
    "checked": ("validation.checked", None),
    "queue_share": ("timings.queue_share", "%"),
    "engine_share": ("timings.engine_share", "%"),
    "batch_rows": ("timings.batch_rows", None),
}


class BadCondition(ValueError):
    """The text of a condition cannot be read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison that fails the run where it holds."""

    text: str
    path: str  # where the figure is in a run's data
    operator: str
    limit: float  # in the unit of the figure: ms, share or plain

    def holds(self, run: Mapping[str, Any]) -> tuple[bool, float | None]:
        """Return whether it holds for a run's data, and the figure.

        A figure that is not there, as a latency where no call was good, fails the run, too.
        """
        value: Any = run
        for part in self.path.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            return True, None
        compare = {
            "<": value < self.limit,
            ">": value > self.limit,
            "<=": value <= self.limit,
            ">=": value >= self.limit,
        }
        return compare[self.operator], float(value)


def parse_condition(text: str) -> Condition:
    """Read a condition; BadCondition says what is expected."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadCondition(f"{text!r}: expected a comparison like p99>20ms, errors>0 or rate<1000")
    name, operator, number, unit = match.groups()
    try:
        limit = float(number)
    except ValueError:
        raise BadCondition(f"{text!r}: {number!r} is no number") from None
    if name in _LATENCIES:
        if unit not in _TO_MS:
            raise BadCondition(f"{text!r}: a latency needs a unit: us, ms or s")
        return Condition(text, f"latency/{name}_ms", operator, limit * _TO_MS[unit])
    if name not in _FIGURES:
        known = ", ".join((*_LATENCIES, *_FIGURES))
        raise BadCondition(f"{text!r}: there is no figure {name!r}; there are {known}")
    path, allowed = _FIGURES[name]
    if unit not in (None, allowed):
        expected = f"{allowed} or none" if allowed else "none"
        raise BadCondition(f"{text!r}: the unit {unit!r} does not fit {name}; expected {expected}")
    return Condition(text, path.replace(".", "/"), operator, limit / 100 if unit == "%" else limit)
