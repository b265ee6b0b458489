"""Text form of the report: tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentserve_client._command_line import table
from latentserve_client.load.report.baseline import Comparison
from latentserve_client.load.report.data import load_text

_LATENCY = ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99.9_ms", "max_ms")
_ENDED = {
    "duration": "",
    "stable": "; ended early because it was stable",
    "not stable": "; NOT STABLE within the time limit",
    "interrupted": "; INTERRUPTED: results until the interruption",
}


def report_text(report: Mapping[str, Any], changes: Sequence[Comparison] = ()) -> str:
    """Return the report as text."""
    parts = [_head(report)]
    if report.get("sweep"):
        which = "The last load:" if report["sweep"]["knee"] is None else "The knee:"
        parts += [_sweep(report["sweep"]), which]
    parts.append(run_text(report["runs"][report["shown"]]))
    if changes:
        parts.append(_changes(changes))
    if report.get("conditions"):
        parts.append(
            "\n".join(
                f"{'FAILED' if condition['failed'] else 'passed'}: not {condition['text']}"
                f" (measured {_short(condition['value'])})"
                for condition in report["conditions"]
            )
        )
    parts += [f"{problem}" for problem in report.get("problems", ())]
    return "\n\n".join(parts)


def run_text(run: Mapping[str, Any]) -> str:
    """Return the tables of one run."""
    lines = [
        f"{load_text(run['load'])}; measured {run['measured_s']:g} s"
        f"{_ENDED.get(run['ended'], '; ' + run['ended'])}",
        "",
        _calls(run),
        "",
        _latencies(run),
    ]
    rate, p99 = run["rate_interval"], run["p99_ms_interval"]
    if rate["relative"] is not None and p99["relative"] is not None:
        lines += [
            "",
            f"95 % confidence over {rate['windows']} windows: rate {rate['mean']:.5g} /s "
            f"± {rate['relative']:.1%}, p99 {p99['mean']:.4g} ms ± {p99['relative']:.1%}",
        ]
    lines += _notes(run)
    return "\n".join(lines)


def _head(report: Mapping[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    tester, models = report["tester"], ", ".join(report["server"]["models"])
    return (
        f"{report['server']['address']} by {report['options']['protocol']}: "
        f"{models or 'no model'}\n"
        f"{machine['processor']}, {machine['cores']} cores; Python {versions['python']}, "
        f"grpcio {versions['grpcio']}; {tester['processes']} process(es), "
        f"{tester['connections']} connection(s), transport {tester['transport']}"
    )


def _calls(run: Mapping[str, Any]) -> str:
    rows = [_calls_row(kind["label"], kind) for kind in run["kinds"]]
    if len(rows) > 1:
        rows.append(_calls_row("all", run))
    headers = (
        "call",
        "calls",
        "rate /s",
        "rows /s",
        "errors",
        "retries",
        "queue",
        "engine",
        "batch",
    )
    return table(headers, rows)


def _calls_row(label: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    timings = data.get("timings")
    shares = (
        (
            f"{timings['queue_ms']:.3g} ms {timings['queue_share']:.0%}",
            f"{timings['engine_ms']:.3g} ms {timings['engine_share']:.0%}",
            f"{timings['batch_rows']:.1f}",
        )
        if timings
        else ("-", "-", "-")
    )
    return (
        label,
        str(data["calls"]),
        f"{data['rate_per_s']:.1f}",
        f"{data['rows_per_s']:.1f}",
        str(data["errors"]),
        str(data["retries"]),
        *shares,
    )


def _latencies(run: Mapping[str, Any]) -> str:
    rows = [_latency_row(kind["label"], kind["latency"]) for kind in run["kinds"]]
    if len(rows) > 1:
        rows.append(_latency_row("all", run["latency"]))
    rows += [
        _latency_row(f"{kind['label']}, first message", kind["first_message"])
        for kind in run["kinds"]
        if "first_message" in kind
    ]
    if run["load"]["loop"] == "open":
        rows.append(_latency_row("from actual send", run["latency_from_send"]))
    return table(("latency ms", *(name.removesuffix("_ms") for name in _LATENCY)), rows)


def _latency_row(label: str, latency: Mapping[str, float | None]) -> tuple[str, ...]:
    return (label, *(_short(latency[name]) for name in _LATENCY))


def _notes(run: Mapping[str, Any]) -> list[str]:
    lines = []
    if run["codes"]:
        codes = ", ".join(f"{name} {count}" for name, count in run["codes"].items())
        lines.append(f"errors: {codes}")
        lines += [f"  {item['code']}: {item['message']}" for item in run["messages"]]
    late = run["late"]
    if late["calls"]:
        lines.append(
            f"sent more than 1 ms late: {late['calls']} calls ({late['share']:.1%}), "
            f"p99 of these {_short(late['p99_ms'])} ms, max {_short(late['max_ms'])} ms"
        )
    server = run.get("server")
    if server:
        measurements = [f"{k} {_short(v)}" for k, v in server.items() if k != "changes"]
        lines.append("server: " + ", ".join(measurements))
    tester = run["tester"]
    if tester["cpu_us_per_call"] is not None and tester["busiest_core_share"] is not None:
        lines.append(
            f"load tester: {tester['cpu_us_per_call']:.0f} us CPU per call, "
            f"busiest process at {tester['busiest_core_share']:.0%} of a core"
        )
    if tester["is_limit"]:
        lines.append("THE LOAD TESTER MAY LIMIT THE RATE: increase --processes")
    checks = run["validation"]
    if checks["checked"] or checks["wrong"] or checks["incomparable"]:
        lines.append(
            f"replies: {checks['checked']} compared, {checks['wrong']} WRONG"
            if checks["wrong"]
            else f"replies: {checks['checked']} compared, all correct"
        )
        if checks["incomparable"]:
            lines.append(f"  {checks['incomparable']} of another model version were not compared")
        lines += [f"  {example}" for example in checks["examples"]]
    return ["", *lines] if lines else []


def _sweep(sweep: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{point['load']:g}",
            f"{point['rate_per_s']:.1f}",
            f"{point['rows_per_s']:.1f}",
            _short(point["p50_ms"]),
            _short(point["p99_ms"]),
            _short(point["p99.9_ms"]),
            str(point["errors"]),
            {True: "yes", False: "no", None: ""}[point["kept"]],
        )
        for point in sweep["points"]
    ]
    headers = (
        sweep["axis"],
        "rate /s",
        "rows /s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "errors",
        "kept",
    )
    text = table(headers, rows)
    if sweep["slo_p99_ms"] is not None:
        knee, objective = sweep["knee"], f"p99 <= {sweep['slo_p99_ms']:g} ms"
        text += "\n\nknee: "
        text += (
            f"none of these loads meets {objective}"
            if knee is None
            else f"{sweep['axis']} {knee:g} is the highest load that meets {objective}"
        )
    return text


def _changes(changes: Sequence[Comparison]) -> str:
    rows = [
        (
            change.name,
            _short(change.before),
            _short(change.after),
            "-" if change.share is None else f"{change.share:+.1%}",
            change.verdict,
        )
        for change in changes
    ]
    return table(("compared with the baseline", "baseline", "now", "change", ""), rows)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
