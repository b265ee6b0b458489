"""Several loads in a row, and the knee: the highest load that keeps what was promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from latentserve_client.load.drive.run import RunResult
from latentserve_client.load.plan.sweep_axis import SweepAxis

# What a load must keep besides the latency, to count as carried.
MAX_ERROR_SHARE = 0.001
MIN_ACHIEVED_SHARE = 0.95  # of the rate that an open loop asks for
_FINE_ENOUGH = 1.05  # neighbours that are closer than this are not split


@dataclass
class SweepPoint:
    """One load of a sweep."""

    load: float
    result: RunResult
    kept: bool | None  # whether it kept the objective; None where there is none


@dataclass
class SweepResult:
    """All of them, in the order of the load."""

    axis: SweepAxis
    slo_p99_ms: float | None
    points: list[SweepPoint] = field(default_factory=list)

    @property
    def knee(self) -> SweepPoint | None:
        """The highest load below which all kept the objective."""
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
    """Run the loads of the axis, low to high.

    With an objective the sweep ends at the first load that breaks it; then up to `refine` loads
    between the last one that kept it and that one are tried, each halving the gap (by ratio).
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


def keeps(result: RunResult, slo_p99_ms: float, asked_per_s: float | None) -> bool:
    """Whether a load was carried: p99 within the objective, few errors, and the rate reached."""
    total = result.summary.total
    if not total.latency.count or total.errors > MAX_ERROR_SHARE * total.calls:
        return False
    if asked_per_s is not None and result.rate_per_s < MIN_ACHIEVED_SHARE * asked_per_s:
        return False
    return total.latency.percentile_ns(99) <= slo_p99_ms * 1e6


def _measure(sweep: SweepResult, run: Callable[[float], RunResult], load: float) -> SweepPoint:
    result = run(load)
    kept = None
    if sweep.slo_p99_ms is not None:
        asked = load if sweep.axis.name == "rate" else None
        kept = keeps(result, sweep.slo_p99_ms, asked)
    point = SweepPoint(load, result, kept)
    sweep.points.append(point)
    sweep.points.sort(key=lambda point: point.load)
    return point


def _between(sweep: SweepResult) -> float | None:
    """Return the load halfway between the knee and the next one; None where they are close."""
    broken = next((point.load for point in sweep.points if point.kept is False), None)
    if broken is None:
        return None
    low = sweep.knee.load if sweep.knee else 0.0
    middle = (low * broken) ** 0.5 if low else broken / 2
    if sweep.axis.is_whole:
        middle = float(round(middle))
    if middle <= low or middle >= broken or (low and broken / low < _FINE_ENOUGH):
        return None
    return middle


def _interrupted(point: SweepPoint) -> bool:
    return point.result.ended not in ("duration", "stable", "not stable")
