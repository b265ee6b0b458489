"""Failure conditions of `--fail-if`: `p99>20ms`, `errors>0`, `rate<1000`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONDITION = re.compile(r"\s*([a-z_][\w.]*)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*(us|µs|ms|s|%|/s)?\s*")
_LATENCIES = ("mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")
_TO_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
# Measurements other than latencies: path in the data of a run, and accepted unit.
_MEASUREMENTS = {
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
    """The text of a condition is malformed."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparison that fails the run if it holds."""

    text: str
    path: str  # keys to the measurement in the data of a run, separated by slashes
    operator: str
    limit: float  # in the unit of the measurement: ms, share or none

    def evaluate(self, run: Mapping[str, Any]) -> tuple[bool, float | None]:
        """Return whether the condition holds for the data of a run, and the measured value.

        A missing measurement, for example a latency if no call succeeded, counts as a failure.
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
    """Parse a condition. Raises BadCondition, which states the expected syntax."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadCondition(f"{text!r}: expected a comparison like p99>20ms, errors>0 or rate<1000")
    name, operator, number, unit = match.groups()
    try:
        limit = float(number)
    except ValueError:
        raise BadCondition(f"{text!r}: {number!r} is not a number") from None
    if name in _LATENCIES:
        if unit not in _TO_MS:
            raise BadCondition(f"{text!r}: a latency requires a unit: us, ms or s")
        return Condition(text, f"latency/{name}_ms", operator, limit * _TO_MS[unit])
    if name not in _MEASUREMENTS:
        known = ", ".join((*_LATENCIES, *_MEASUREMENTS))
        raise BadCondition(f"{text!r}: unknown measurement {name!r}; expected one of {known}")
    path, allowed = _MEASUREMENTS[name]
    if unit not in (None, allowed):
        expected = f"{allowed} or none" if allowed else "none"
        raise BadCondition(
            f"{text!r}: the unit {unit!r} is invalid for {name}; expected {expected}"
        )
    return Condition(text, path.replace(".", "/"), operator, limit / 100 if unit == "%" else limit)
