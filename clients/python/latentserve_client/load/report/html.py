"""HTML form of the report: one page without scripts or external resources."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentserve_client.load.report.data import load_text
from latentserve_client.load.report.svg import Axis, Bar, Line, chart

_STYLE = """
:root { color-scheme: light dark; --text: #1f2430; --dim: #667085; --grid: #e4e7ec; --page: #fff;
  --card: #f6f7f9; --c1: #2563eb; --c2: #d9480f; --c3: #0f8a5f; --bar: #7aa2f7; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ee; --dim: #98a2b3; --grid: #2d3340;
  --page: #14171f; --card: #1d212c; --c1: #7aa2f7; --c2: #ff9e64; --c3: #6fd3a5; --bar: #3b5bb5;
  --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, .dim { color: var(--dim); margin: .1rem 0; }
.bad { color: var(--bad); font-weight: 600; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.card { background: var(--card); border-radius: 8px; padding: .6rem .9rem; min-width: 7.5rem; }
.card b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: .6rem; }
figcaption { font-weight: 600; padding: 0 .4rem; }
svg { width: 100%; height: auto; display: block; }
.one { max-width: 760px; margin-bottom: .7rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--grid); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
.grid { stroke: var(--grid); } .tick, .label { fill: var(--dim); font-size: 12px; }
.mark, .point { fill: var(--text); font-size: 12px; }
.level { stroke: var(--dim); stroke-dasharray: 4 3; } .bar { fill: var(--bar); }
.line { fill: none; stroke-width: 2; } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
pre { background: var(--card); border-radius: 8px; padding: .8rem; overflow-x: auto; }
"""


def write_html(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as an HTML page."""
    path.write_text(page(report), "utf-8")


def page(report: Mapping[str, Any]) -> str:
    """Return the report as an HTML page."""
    run = report["runs"][report["shown"]]
    title = f"Load on {report['server']['address']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(', '.join(report['server']['models']) or 'no model')}</p>",
        f"<p>{html.escape(load_text(run['load']))}; measured {run['measured_s']:g} s; "
        f"{html.escape(report['started'])}</p>",
        *(f'<p class="bad">{html.escape(problem)}</p>' for problem in report["problems"]),
        *_conditions(report["conditions"]),
        _cards(run),
    ]
    if report.get("sweep"):
        parts += ["<h2>Sweep</h2>", _knee(report["sweep"]), _sweep_chart(report["sweep"])]
        which = "last load" if report["sweep"]["knee"] is None else "knee"
        parts += [_sweep_table(report["sweep"]), f"<h2>The {which}</h2>"]
    parts += [f'<div class="charts">{_histogram(run)}{_over_time(run)}{_rate(run)}</div>']
    parts += ["<h2>Calls</h2>", _calls(run), "<h2>Latency, ms</h2>", _latencies(run)]
    parts += _extras(report, run)
    head = (
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style>"
    )
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _cards(run: Mapping[str, Any]) -> str:
    latency, values = run["latency"], [("calls /s", run["rate_per_s"])]
    values += [("rows /s", run["rows_per_s"]), ("mean ms", latency["mean_ms"])]
    values += [(f"{name} ms", latency[f"{name}_ms"]) for name in ("p50", "p99", "p99.9", "max")]
    values += [("calls", run["calls"]), ("errors", run["errors"]), ("late", run["late"]["calls"])]
    cards = "".join(
        f'<div class="card">{name}<b>{_number(value)}</b></div>' for name, value in values
    )
    return f'<div class="cards">{cards}</div>'


def _histogram(run: Mapping[str, Any]) -> str:
    bars = [Bar(bar["from_ms"], bar["to_ms"], bar["count"]) for bar in run["histogram"]]
    if not bars:
        return ""
    latency = run["latency"]
    marks = [(latency[f"{name}_ms"], name) for name in ("p50", "p95", "p99", "p99.9")]
    x = Axis("latency, ms (logarithmic)", bars[0].low, bars[-1].high, logarithmic=True)
    y = Axis("calls", 0, max(bar.value for bar in bars))
    return chart("Latency histogram", x, y, bars=bars, marks=marks)


def _over_time(run: Mapping[str, Any]) -> str:
    buckets = [bucket for bucket in run["timeline"] if bucket["p50_ms"] is not None]
    if not buckets:
        return ""
    names = (("max", "c3"), ("p99", "c2"), ("p50", "c1"))
    lines = [
        Line(name, [(bucket["at_s"], bucket[f"{name}_ms"]) for bucket in buckets], colour)
        for name, colour in names
    ]
    x = Axis("seconds of the measured time", 0, buckets[-1]["at_s"])
    low, high = (
        min(bucket["p50_ms"] for bucket in buckets),
        max(bucket["max_ms"] for bucket in buckets),
    )
    y = Axis("ms (logarithmic)", low * 0.8, high * 1.25, logarithmic=True)
    return chart("Latency over time", x, y, lines=lines)


def _rate(run: Mapping[str, Any]) -> str:
    buckets = run["timeline"]
    if not buckets:
        return ""
    lines = [Line("calls /s", [(bucket["at_s"], bucket["rate_per_s"]) for bucket in buckets], "c1")]
    if run["errors"]:
        width_s = buckets[1]["at_s"] - buckets[0]["at_s"] if len(buckets) > 1 else 1
        lines.append(Line("errors /s", [(s["at_s"], s["errors"] / width_s) for s in buckets], "c2"))
    x = Axis("seconds of the measured time", 0, buckets[-1]["at_s"])
    y = Axis("per second", 0, max(py for line in lines for _, py in line.points))
    return chart("Throughput over time", x, y, lines=lines)


def _sweep_chart(sweep: Mapping[str, Any]) -> str:
    points = [point for point in sweep["points"] if point["p99_ms"] is not None]
    if not points:
        return ""
    names = (("p99", "c2"), ("p50", "c1"))
    lines = [
        Line(
            name,
            [(point["rate_per_s"], point[f"{name}_ms"]) for point in points],
            colour,
            [f"{point['load']:g}" for point in points] if name == "p99" else (),
            dots=True,
        )
        for name, colour in names
    ]
    low = min(point["p50_ms"] for point in points)
    high = max(point["p99_ms"] for point in points)
    slo = sweep["slo_p99_ms"]
    level = None if slo is None else (slo, f"objective: p99 {slo:g} ms")
    x = Axis(
        "throughput, successful calls per second", 0, max(point["rate_per_s"] for point in points)
    )
    y = Axis("latency, ms (logarithmic)", low * 0.8, max(high, slo or 0) * 1.25, logarithmic=True)
    title = f"Latency by throughput; the labels are the {sweep['axis']}"
    return f'<div class="one">{chart(title, x, y, lines=lines, level=level)}</div>'


def _knee(sweep: Mapping[str, Any]) -> str:
    if sweep["slo_p99_ms"] is None:
        return ""
    if sweep["knee"] is None:
        return f'<p class="bad">None of these loads meets p99 ≤ {sweep["slo_p99_ms"]:g} ms</p>'
    return (
        f"<p>Knee: {sweep['axis']} <b>{sweep['knee']:g}</b> is the highest load that meets "
        f"p99 ≤ {sweep['slo_p99_ms']:g} ms</p>"
    )


def _sweep_table(sweep: Mapping[str, Any]) -> str:
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
    names = ("load", "rate_per_s", "rows_per_s", "p50_ms", "p99_ms", "p99.9_ms", "errors")
    kept = {True: "yes", False: "no", None: ""}
    rows = [
        [*(_number(point[name]) for name in names), kept[point["kept"]]]
        for point in sweep["points"]
    ]
    return _table(headers, rows)


def _calls(run: Mapping[str, Any]) -> str:
    headers = ["call", "calls", "rate /s", "rows /s", "errors", "retries"]
    headers += ["queue ms", "queue share", "engine ms", "engine share", "batch rows"]
    rows = []
    for data in (*run["kinds"], {"label": "all", **run}):
        timings = data.get("timings", {})
        names = ("calls", "rate_per_s", "rows_per_s", "errors", "retries")
        rows.append(
            [
                data["label"],
                *(_number(data[name]) for name in names),
                _number(timings.get("queue_ms")),
                _percent(timings.get("queue_share")),
                _number(timings.get("engine_ms")),
                _percent(timings.get("engine_share")),
                _number(timings.get("batch_rows")),
            ]
        )
    return _table(headers, rows)


def _latencies(run: Mapping[str, Any]) -> str:
    names = list(run["latency"])
    rows = [
        [data["label"], *(_number(data["latency"][name]) for name in names)]
        for data in (*run["kinds"], {"label": "all", **run})
    ]
    if run["load"]["loop"] == "open":
        from_send = run["latency_from_send"]
        rows.append(["all, from the actual send", *(_number(from_send[name]) for name in names)])
    return _table(("call", *(name.removesuffix("_ms") for name in names)), rows)


def _extras(report: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    parts = []
    if report["baseline"]:
        rows = [
            [
                c["name"],
                _number(c["before"]),
                _number(c["after"]),
                _percent(c["share"]),
                c["verdict"],
            ]
            for c in report["baseline"]
        ]
        headers = ("", "baseline", "now", "change", "result")
        parts += ["<h2>Comparison with the baseline</h2>", _table(headers, rows)]
    if run["codes"]:
        rows = [[code, str(count)] for code, count in run["codes"].items()]
        parts += ["<h2>Errors</h2>", _table(("code", "calls"), rows)]
        messages = "\n".join(f"{item['code']}: {item['message']}" for item in run["messages"])
        parts.append(f"<pre>{html.escape(messages)}</pre>")
    checks = run["validation"]
    parts += ["<h2>Replies</h2>", f"<p>{checks['checked']} compared, {checks['wrong']} wrong</p>"]
    if "server" in run:
        rows = [
            [name, _number(value)] for name, value in run["server"].items() if name != "changes"
        ]
        parts += ["<h2>Server</h2>", _table(("metric", "value"), rows)]
    for name in ("tester", "machine", "versions", "options"):
        facts = {**report[name], **run["tester"]} if name == "tester" else report[name]
        given = {key: value for key, value in facts.items() if value not in (None, [], False)}
        rows = [[key, str(value)] for key, value in given.items()]
        parts += [f"<h2>{name.capitalize()}</h2>", _table((name, "value"), rows)]
    return parts


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for condition in conditions:
        style, word = ("bad", "FAILED") if condition["failed"] else ("dim", "passed")
        text = f"{word}: not {condition['text']} (measured {_number(condition['value'])})"
        lines.append(f'<p class="{style}">{html.escape(text)}</p>')
    return lines


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(header)}</th>" for header in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1e4 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
