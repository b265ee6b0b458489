"""Data of the report: plain values, written as JSON and rendered by the other forms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from latentserve_client.load.drive.run import RunResult
from latentserve_client.load.drive.sweep import SweepResult
from latentserve_client.load.measure.confidence_intervals import ConfidenceInterval
from latentserve_client.load.measure.histogram import Histogram
from latentserve_client.load.measure.server_metrics import changes, server_measurements
from latentserve_client.load.measure.summary import CallStatistics, Summary
from latentserve_client.load.measure.timeline import Timeline
from latentserve_client.load.plan.run_spec import LoadSpec
from latentserve_client.load.plan.workload import CallKind

FORMAT = "latentserve-load/1"
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
# A process of the load tester above this share of a core may limit the rate.
BUSY_SHARE = 0.9
_BARS = 60
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def run_data(result: RunResult, kinds: Sequence[CallKind]) -> dict[str, Any]:
    """Return the data of one run."""
    summary, measured_s = result.summary, result.measured_s
    total = summary.total
    data: dict[str, Any] = {
        "load": load_data(result.load),
        "ended": result.ended,
        "measured_s": _rounded(measured_s),
        **_totals(total, measured_s),
        "rate_interval": _interval(result.rate, 1.0),
        "p99_ms_interval": _interval(result.p99_ns, 1e-6),
        "late": _late(summary),
        "kinds": [
            {"label": kind.label, **_totals(totals, measured_s)}
            for kind, totals in zip(kinds, summary.kinds, strict=True)
        ],
        "messages": _messages(result.failures),
        "validation": {
            "checked": result.validation.checked,
            "wrong": result.validation.wrong,
            "incomparable": result.validation.incomparable,
            "skipped": result.validation.skipped,
            "examples": result.validation.examples,
        },
        "tester": _tester(result),
        "histogram": [
            {"from_ms": _rounded(low / 1e6), "to_ms": _rounded(high / 1e6), "count": count}
            for low, high, count in total.latency.bars(_BARS)
        ],
        "timeline": _timeline(summary.timeline, measured_s),
    }
    if result.before is not None and result.after is not None:
        data["server"] = {
            **{
                name: _rounded(value)
                for name, value in server_measurements(
                    result.before, result.after, total.successful
                ).items()
            },
            "changes": changes(result.before, result.after),
        }
    return data


def sweep_data(sweep: SweepResult) -> dict[str, Any]:
    """Return the points of a sweep, without the data of their runs."""
    return {
        "axis": sweep.axis.name,
        "slo_p99_ms": sweep.slo_p99_ms,
        "knee": sweep.knee.load if sweep.knee else None,
        "points": [
            {
                "load": point.load,
                "kept": point.kept,
                "rate_per_s": _rounded(point.result.rate_per_s),
                "rows_per_s": _rounded(point.result.rows_per_s),
                "errors": point.result.summary.total.errors,
                **_latency(point.result.summary.total.latency),
            }
            for point in sweep.points
        ],
    }


def load_data(load: LoadSpec) -> dict[str, Any]:
    """Return the data of the requested load."""
    if load.profile is None:
        return {"loop": "closed", "concurrency": load.concurrency}
    segments = load.profile.segments
    return {
        "loop": "open",
        "arrivals": load.arrivals,
        "segments": [
            {
                "duration_s": _rounded(segment.duration_s),
                "from_per_s": segment.start_per_s,
                "to_per_s": segment.end_per_s,
            }
            for segment in segments
        ],
    }


def load_text(load: Mapping[str, Any]) -> str:
    """Return a description of a load in one line, from its data."""
    if load["loop"] == "closed":
        return f"closed loop, {load['concurrency']} calls in flight"
    parts = []
    for segment in load["segments"]:
        low, high = segment["from_per_s"], segment["to_per_s"]
        parts.append(f"{low:g}/s" if low == high else f"{low:g} to {high:g}/s")
    return f"open loop, {load['arrivals']} arrivals, {', then '.join(parts)}"


def _totals(totals: CallStatistics, measured_s: float) -> dict[str, Any]:
    errors = {
        _CODES.get(code, str(code)): count
        for code, count in sorted(totals.codes.items())
        if code and count
    }
    data: dict[str, Any] = {
        "calls": totals.calls,
        "errors": totals.errors,
        "error_share": _rounded(totals.errors / totals.calls) if totals.calls else 0.0,
        "codes": errors,
        "retries": totals.retries,
        "rate_per_s": _rounded(totals.successful / measured_s) if measured_s else 0.0,
        "rows_per_s": _rounded(totals.successful_rows / measured_s) if measured_s else 0.0,
        "latency": _latency(totals.latency),
        "latency_from_send": _latency(totals.service),
    }
    if totals.first.count:
        data["first_message"] = _latency(totals.first)
    if totals.timed:
        share_of = totals.timed_ns or math.nan
        data["timings"] = {
            "queue_ms": _rounded(totals.queue_ns / totals.timed / 1e6),
            "engine_ms": _rounded(totals.compute_ns / totals.timed / 1e6),
            "queue_share": _rounded(totals.queue_ns / share_of),
            "engine_share": _rounded(totals.compute_ns / share_of),
            "batch_rows": _rounded(totals.batch_rows / totals.timed),
        }
    return data


def _latency(histogram: Histogram) -> dict[str, float | None]:
    data = {"mean_ms": _ms(histogram.mean_ns)}
    for percent in PERCENTILES:
        data[f"p{percent:g}_ms"] = _ms(histogram.percentile_ns(percent))
    data["max_ms"] = _ms(histogram.max_ns if histogram.count else math.nan)
    return data


def _late(summary: Summary) -> dict[str, Any]:
    calls = summary.total.calls
    return {
        "calls": summary.late.count,
        "share": _rounded(summary.late.count / calls) if calls else 0.0,
        "p99_ms": _ms(summary.late.percentile_ns(99)),
        "max_ms": _ms(summary.late.max_ns if summary.late.count else math.nan),
    }


def _tester(result: RunResult) -> dict[str, Any]:
    shares = [cpu_s / result.measured_s for cpu_s in result.cpu_s] if result.measured_s else []
    ended = result.summary.total.successful
    return {
        "cpu_s": _rounded(sum(result.cpu_s)),
        "cpu_us_per_call": _rounded(sum(result.cpu_s) / ended * 1e6) if ended else None,
        "busiest_core_share": _rounded(max(shares)) if shares else None,
        "is_limit": bool(shares) and max(shares) > BUSY_SHARE,
    }


def _timeline(timeline: Timeline, measured_s: float) -> list[dict[str, Any]]:
    # Omits an incomplete last bucket, because its rate would be too low.
    whole = int(measured_s / timeline.width_s + 1e-6)
    return [
        {
            "at_s": _rounded(number * timeline.width_s),
            "rate_per_s": _rounded(bucket.successes / timeline.width_s),
            "errors": bucket.errors,
            "p50_ms": _ms(bucket.latency.percentile_ns(50)),
            "p99_ms": _ms(bucket.latency.percentile_ns(99)),
            "max_ms": _ms(bucket.latency.max_ns if bucket.latency.count else math.nan),
        }
        for number, bucket in enumerate(timeline.buckets[:whole])
    ]


def _messages(failures: Counter[tuple[int, str]]) -> list[dict[str, Any]]:
    return [
        {"code": _CODES.get(code, str(code)), "message": message}
        for (code, message), _ in failures.most_common(5)
    ]


def _interval(interval: ConfidenceInterval, scale: float) -> dict[str, float | int | None]:
    return {
        "mean": _finite(interval.mean * scale),
        "half_width": _finite(interval.half_width * scale),
        "relative": _finite(interval.relative),
        "windows": interval.windows,
    }


def _ms(nanoseconds: float) -> float | None:
    return _finite(nanoseconds / 1e6)


def _finite(number: float) -> float | None:
    return _rounded(number) if math.isfinite(number) else None


def _rounded(number: float) -> float:
    """Return a number rounded to six significant digits; more digits would clutter diffs."""
    return float(f"{number:.6g}")
