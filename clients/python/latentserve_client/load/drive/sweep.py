"""Sweep: runs at several loads, and the knee, the highest load within the objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from latentserve_client.load.drive.run import RunResult
from latentserve_client.load.plan.sweep_axis import SweepAxis

# Conditions besides the latency that a load must meet.
MAX_ERROR_SHARE = 0.001
MIN_ACHIEVED_SHARE = 0.95  # of the requested rate of an open loop
_MIN_GAP = 1.05  # smallest ratio of neighbouring loads that is refined


@dataclass
class SweepPoint:
    """Load and result of one run of a sweep."""

    load: float
    result: RunResult
    kept: bool | None  # whether the run met the objective; None without an objective


@dataclass
class SweepResult:
    """Points of a sweep, ascending by load."""

    axis: SweepAxis
    slo_p99_ms: float | None
    points: list[SweepPoint] = field(default_factory=list)

    @property
    def knee(self) -> SweepPoint | None:
        """The highest load up to which all loads met the objective."""
        best = None
        for point in self.points:
            if not point.kept:
                break
            best = point
        return best


def run_sweep(
    axis: SweepAxis,
    run: Callable[[float], RunResult],
    *,
    slo_p99_ms: float | None = None,
    refine: int = 0,
) -> SweepResult:
    """Run the loads of the axis in ascending order.

    With an objective, the sweep stops at the first load that violates it. Then it runs up to
    `refine` loads between the knee and that load, each at the geometric mean of the gap.
    """
    sweep = SweepResult(axis, slo_p99_ms)
    for load in axis.points:
        point = _measure(sweep, run, load)
        if _interrupted(point):
            return sweep
        if point.kept is False:
            break
    for _ in range(refine):
        between = _between(sweep)
        if between is None or _interrupted(_measure(sweep, run, between)):
            break
    return sweep


def meets_objective(result: RunResult, slo_p99_ms: float, rate_per_s: float | None) -> bool:
    """Return whether p99 and error share are within their limits and the rate was achieved."""
    total = result.summary.total
    if not total.latency.count or total.errors > MAX_ERROR_SHARE * total.calls:
        return False
    if rate_per_s is not None and result.rate_per_s < MIN_ACHIEVED_SHARE * rate_per_s:
        return False
    return total.latency.percentile_ns(99) <= slo_p99_ms * 1e6


def _measure(sweep: SweepResult, run: Callable[[float], RunResult], load: float) -> SweepPoint:
    result = run(load)
    kept = None
    if sweep.slo_p99_ms is not None:
        rate_per_s = load if sweep.axis.name == "rate" else None
        kept = meets_objective(result, sweep.slo_p99_ms, rate_per_s)
    point = SweepPoint(load, result, kept)
    sweep.points.append(point)
    sweep.points.sort(key=lambda point: point.load)
    return point


def _between(sweep: SweepResult) -> float | None:
    """Return the geometric mean of the knee and the load above it; None if they are close."""
    broken = next((point.load for point in sweep.points if point.kept is False), None)
    if broken is None:
        return None
    low = sweep.knee.load if sweep.knee else 0.0
    middle = (low * broken) ** 0.5 if low else broken / 2
    if sweep.axis.is_whole:
        middle = float(round(middle))
    if middle <= low or middle >= broken or (low and broken / low < _MIN_GAP):
        return None
    return middle


def _interrupted(point: SweepPoint) -> bool:
    return point.result.ended not in ("duration", "stable", "not stable")
