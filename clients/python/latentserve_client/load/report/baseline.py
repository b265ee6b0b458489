"""Two reports side by side: what has changed, and whether it is more than noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_client.load.measure.confidence_intervals import ConfidenceInterval
from latentserve_client.load.report.data import FORMAT

# Name for people, path in a run's data, whether more is better.
_FIGURES: tuple[tuple[str, str, bool], ...] = (
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
# Where both runs have an interval, a difference within them is noise.
_INTERVALS = {"rate_per_s": "rate_interval", "latency/p99_ms": "p99_ms_interval"}


class BadBaseline(Exception):
    """The file is no report."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure then and now."""

    name: str
    before: float
    after: float
    verdict: str  # "better", "worse", "noise" or "" where nothing can be said

    @property
    def share(self) -> float | None:
        """The change as a share of the figure before."""
        return (self.after - self.before) / self.before if self.before else None


def read_baseline(path: Path) -> dict[str, Any]:
    """Return the report of a file. Raises OSError, and BadBaseline for what is none."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise BadBaseline(f"{path}: not JSON; expected a file of --out REPORT.json") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT or not report.get("runs"):
        raise BadBaseline(f"{path}: no report of this load tester ({FORMAT})")
    return report


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the figures that the runs shown in both reports have."""
    old, new = before["runs"][before["shown"]], after["runs"][after["shown"]]
    changes = []
    for name, path, more_is_better in _FIGURES:
        then, now = _at(old, path), _at(new, path)
        if then is None or now is None:
            continue
        changes.append(Change(name, then, now, _verdict(old, new, path, more_is_better)))
    return changes


def differing_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what was asked for differently: figures of different loads do not compare."""
    quiet = {"server", "out", "json", "baseline", "fail_if", "metrics_url"}
    old, new = before.get("options", {}), after.get("options", {})
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in quiet and old.get(name) != new.get(name)
    ]


def _verdict(
    old: Mapping[str, Any], new: Mapping[str, Any], path: str, more_is_better: bool
) -> str:
    name = _INTERVALS.get(path)
    if name is None:
        return ""
    then, now = _interval(old.get(name)), _interval(new.get(name))
    if then is None or now is None:
        return ""
    if then.overlaps(now):
        return "noise"
    return "better" if (now.mean > then.mean) == more_is_better else "worse"


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
