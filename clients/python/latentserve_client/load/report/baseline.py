"""Comparison of a report with an earlier one, the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_client.load.measure.confidence_intervals import ConfidenceInterval
from latentserve_client.load.report.data import FORMAT

# Label, path in the data of a run, whether higher is better.
_MEASUREMENTS: tuple[tuple[str, str, bool], ...] = (
    ("rate /s", "rate_per_s", True),
    ("rows /s", "rows_per_s", True),
    ("mean ms", "latency/mean_ms", False),
    ("p50 ms", "latency/p50_ms", False),
    ("p99 ms", "latency/p99_ms", False),
    ("p99.9 ms", "latency/p99.9_ms", False),
    ("max ms", "latency/max_ms", False),
    ("error share", "error_share", False),
    ("server CPU us per call", "server/cpu_us_per_call", False),
    ("server batch rows", "server/mean_batch_rows", True),
    ("server memory MiB", "server/memory_mib_after", False),
)
# Measurements with a confidence interval: a difference within the intervals is noise.
_INTERVALS = {"rate_per_s": "rate_interval", "latency/p99_ms": "p99_ms_interval"}


class BadBaseline(Exception):
    """The file is not a report of this load tester."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measurement in the baseline and in the new report."""

    name: str
    before: float
    after: float
    verdict: str  # "better", "worse", "noise", or "" without confidence intervals

    @property
    def share(self) -> float | None:
        """Change as a share of the baseline."""
        return (self.after - self.before) / self.before if self.before else None


def read_baseline(path: Path) -> dict[str, Any]:
    """Return the report in a file. Raises OSError, and BadBaseline for another kind of file."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise BadBaseline(
            f"{path}: not JSON; expected a report written by --out REPORT.json"
        ) from None
    if not isinstance(report, dict) or report.get("format") != FORMAT or not report.get("runs"):
        raise BadBaseline(f"{path}: not a report of this load tester ({FORMAT})")
    return report


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Comparison]:
    """Compare the measurements that the shown runs of both reports have in common."""
    old, new = before["runs"][before["shown"]], after["runs"][after["shown"]]
    changes = []
    for name, path, higher_is_better in _MEASUREMENTS:
        then, now = _at(old, path), _at(new, path)
        if then is None or now is None:
            continue
        changes.append(Comparison(name, then, now, _verdict(old, new, path, higher_is_better)))
    return changes


def differing_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the options that differ; measurements of different loads are not comparable."""
    irrelevant = {"server", "out", "json", "baseline", "fail_if", "metrics_url"}
    old, new = before.get("options", {}), after.get("options", {})
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in irrelevant and old.get(name) != new.get(name)
    ]


def _verdict(
    old: Mapping[str, Any], new: Mapping[str, Any], path: str, higher_is_better: bool
) -> str:
    name = _INTERVALS.get(path)
    if name is None:
        return ""
    then, now = _interval(old.get(name)), _interval(new.get(name))
    if then is None or now is None:
        return ""
    if then.overlaps(now):
        return "noise"
    return "better" if (now.mean > then.mean) == higher_is_better else "worse"


def _interval(data: Any) -> ConfidenceInterval | None:
    if not isinstance(data, Mapping) or data.get("half_width") is None or data.get("mean") is None:
        return None
    return ConfidenceInterval(
        float(data["mean"]), float(data["half_width"]), int(data.get("windows", 0))
    )


def _at(data: Any, path: str) -> float | None:
    for part in path.split("/"):
        data = data.get(part) if isinstance(data, Mapping) else None
    return float(data) if isinstance(data, int | float) else None
