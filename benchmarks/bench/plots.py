"""Draws the plots of results.json; every one has a sentence in RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.cells import (
    AIO,
    AIO2,
    CQ,
    CQ2,
    EMPTY,
    KSERVE,
    MLSERVER,
    MLSERVER_PLAIN,
    TRITON,
)
from bench.results import PEERS, Results, describe_rows, median, parts, times

COLOURS = {
    "bare run": "#7f7f7f",
    EMPTY: "#b0b0b0",
    CQ: "#1f77b4",
    AIO: "#ff7f0e",
    CQ2: "#0b3c5d",
    AIO2: "#a04000",
    TRITON: "#2ca02c",
    MLSERVER: "#9467bd",
    MLSERVER_PLAIN: "#c5a3e0",
    KSERVE: "#d62728",
}
PARTS = {
    "model": "#1f77b4",
    "around the model": "#6baed6",
    "queue": "#ffbb78",
    "transport": "#b0b0b0",
    "the rest": "#d62728",
}
_WIDTH, _HEIGHT, _DPI = 7.0, 4.0, 100


def names(result: dict[str, Any]) -> list[str]:
    """Return the files of all plots that the result has results for."""
    return [f"{name}.png" for name, (has, _) in _PLOTS.items() if has(Results(result))]


def draw_all(result: dict[str, Any], folder: Path) -> None:
    """Write them."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    results = Results(result)
    for name, (has, draw) in _PLOTS.items():
        target = folder / f"{name}.png"
        if not has(results):
            target.unlink(missing_ok=True)
            continue
        figure = plt.figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
        draw(results, figure)
        # Without the version of matplotlib: the same results give the same file.
        figure.savefig(target, metadata={"Software": None})
        plt.close(figure)


def _throughput_latency(results: Results, figure: Any) -> None:
    axis = figure.subplots()
    cells = results.group("curve")
    for server in (EMPTY, CQ, AIO, *PEERS):
        found = [
            (rate, median(cell, server, "p50_us"), median(cell, server, "p99_us"))
            for cell in cells
            if (rate := median(cell, server, "calls_per_s")) is not None
        ]
        if not found:
            continue
        rates = [rate for rate, _, _ in found]
        axis.plot(
            rates,
            [_ms(p50) for _, p50, _ in found],
            "o-",
            ms=4,
            color=COLOURS[server],
            label=server,
        )
        axis.plot(rates, [_ms(p99) for _, _, p99 in found], ":", color=COLOURS[server], lw=1)
    axis.set(xscale="log", yscale="log", xlabel="calls per second", ylabel="latency in ms")
    axis.set_title("One row, 1 to 128 calls in flight: p50 (lines), p99 (dots)", fontsize=10)
    _finish(axis)


def _one_call(results: Results, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    cells = results.group("sizes")
    alone = [(cell, found) for cell in cells if (found := _single_call_times(results, cell))]
    busy = [
        (cell, found)
        for cell in cells
        if cell["in_flight"] > 1
        and cell["in_flight"] == _busy_in_flight(cells, cell["rows"])
        and (found := parts(results, cell))
    ]
    _stacked_bars(left, alone, "time, 1 call in flight")
    _stacked_bars(right, busy, "server CPU, many calls in flight")
    left.set_ylabel("% of one call")
    handles: dict[str, Any] = {}
    for axis in (left, right):
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)


def _single_call_times(results: Results, cell: dict[str, Any]) -> dict[str, float] | None:
    return times(results, cell) if cell["in_flight"] == 1 else None


def _busy_in_flight(cells: list[dict[str, Any]], rows: int) -> int:
    """Return the calls in flight of the busy cell of that size: 32, or the most below."""
    several = [cell["in_flight"] for cell in cells if cell["rows"] == rows]
    return max((each for each in several if each <= 32), default=0)


def _stacked_bars(
    axis: Any, found: list[tuple[dict[str, Any], dict[str, float]]], title: str
) -> None:
    """Draw shares; the microseconds of the whole call stand above each bar."""
    ends, positions = np.zeros(len(found)), range(len(found))
    # A rest below zero is no part of the bar.
    drawn = [{name: max(0.0, us) for name, us in taken.items()} for _, taken in found]
    for part in PARTS:
        if not any(part in each for each in drawn):
            continue
        tall = np.array([100 * each.get(part, 0.0) / sum(each.values()) for each in drawn])
        axis.bar(positions, tall, 0.6, bottom=ends, color=PARTS[part], label=part)
        ends += tall
    for position, (_, taken) in zip(positions, found, strict=True):
        whole = f"{sum(taken.values()):,.0f} µs"
        axis.annotate(whole, (position, 100), ha="center", va="bottom", fontsize=8)
    axis.set_xticks(positions, [describe_rows(cell) for cell, _ in found], fontsize=8)
    axis.set(ylim=(0, 110))
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _workers(results: Results, figure: Any) -> None:
    cells = results.group("workers")
    axes = figure.subplots(1, len(cells), squeeze=False)[0]
    for axis, cell in zip(axes, cells, strict=True):
        for number, (one, two) in enumerate(((CQ, CQ2), (AIO, AIO2))):
            rates = [median(cell, server, "calls_per_s") or 0.0 for server in (one, two)]
            if not any(rates):
                continue
            at = [0 + 0.4 * number, 1.2 + 0.4 * number]
            bars = axis.bar(at, rates, 0.38, color=COLOURS[one], label=one)
            axis.bar_label(bars, fmt="{:,.0f}", fontsize=8)
        axis.set_xticks([0.2, 1.4], ["1 worker", "2 workers"])
        axis.set_title(f"{describe_rows(cell)}, {cell['in_flight']} in flight", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("calls per second")
    axes[0].legend(fontsize=8)


def _rows(results: Results, figure: Any) -> None:
    axis = figure.subplots()
    cells = results.group("sizes")
    busy = [cell for cell in cells if cell["in_flight"] == _busy_in_flight(cells, cell["rows"])]
    for server in ("bare run", EMPTY, CQ, AIO, *PEERS):
        found = [
            (cell["rows"], us)
            for cell in busy
            if (
                us := results.bare_us(cell)
                if server == "bare run"
                else median(cell, server, "cpu_us")
            )
        ]
        if found:
            style = "--" if server in ("bare run", EMPTY) else "o-"
            axis.plot(*zip(*found, strict=True), style, ms=4, color=COLOURS[server], label=server)
    axis.set(xscale="log", yscale="log", xlabel="rows per request", ylabel="server CPU µs per call")
    axis.set_xticks([cell["rows"] for cell in busy], [str(cell["rows"]) for cell in busy])
    axis.minorticks_off()
    _finish(axis)


def _models(results: Results, figure: Any) -> None:
    grown = results.result["growth"]["models"]
    counts = [each["models"] for each in grown]
    series = {
        "start in s": [each["start_s"] for each in grown],
        "memory in MB": [each["memory_mb"] for each in grown],
        "CPU µs per call of one": [_middle(each["cpu_us"]) for each in grown],
    }
    _panels(figure, counts, series, "models loaded")


def _clients(results: Results, figure: Any) -> None:
    grown = results.result["growth"]["clients"]
    series = {
        "CPU µs per call": [_middle(each["cpu_us"]) for each in grown],
        "resident MB, at most": [each["resident_mb"] for each in grown],
    }
    _panels(figure, [each["clients"] for each in grown], series, "connections, a call on each")


def _panels(figure: Any, counts: list[int], series: dict[str, list[float]], below: str) -> None:
    for axis, (name, values) in zip(figure.subplots(1, len(series)), series.items(), strict=True):
        axis.plot(counts, values, "o-", color=COLOURS[CQ])
        axis.set(xscale="log", xlabel=below, ylim=(0, 1.15 * max(values)))
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)


def _hours(results: Results, figure: Any) -> None:
    axis = figure.subplots()
    for each in results.result["growth"]["hours"]:
        # The control leaks on purpose.
        colour = COLOURS.get(each["name"], "tab:red")
        minutes = np.array(each["seconds"]) / 60
        axis.plot(minutes, each["resident_mb"], color=colour, label=each["name"])
    axis.set(xlabel="minutes of calls of every kind", ylabel="resident MB")
    axis.set_ylim(0, 1.15 * axis.dataLim.ymax)
    _finish(axis)


def _finish(axis: Any) -> None:
    axis.grid(alpha=0.3, which="major")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)


def _ms(us: float | None) -> float:
    return float("nan") if us is None else us / 1000


def _middle(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")


_PLOTS: dict[str, tuple[Callable[[Results], bool], Callable[[Results, Any], None]]] = {
    "throughput-latency": (lambda f: bool(f.group("curve")), _throughput_latency),
    "one-call": (
        lambda f: any(parts(f, cell) or _single_call_times(f, cell) for cell in f.group("sizes")),
        _one_call,
    ),
    "workers": (lambda f: bool(f.group("workers")), _workers),
    "growth-rows": (lambda f: bool(f.group("sizes")), _rows),
    "growth-models": (lambda f: bool(f.result["growth"]["models"]), _models),
    "growth-clients": (lambda f: bool(f.result["growth"]["clients"]), _clients),
    "growth-hours": (lambda f: bool(f.result["growth"]["hours"]), _hours),
}
