"""Reads what results.json holds: medians over the rounds, spreads, ratios. Plots and tables do."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench import bare
from bench.cells import CQ, EMPTY, KSERVE, MLSERVER, MLSERVER_PLAIN, TRITON

PEERS = (TRITON, MLSERVER, MLSERVER_PLAIN, KSERVE)


@dataclass(frozen=True)
class Results:
    """What was measured, by cell and server."""

    result: dict[str, Any]

    def group(self, name: str) -> list[dict[str, Any]]:
        """Return the cells of a group, in order of rows and calls in flight."""
        found = [cell for cell in self.result["cells"] if name in cell["groups"]]
        if name == "curve" or name == "sizes":
            found.sort(key=lambda cell: (cell["rows"], cell["in_flight"]))
        return found

    @property
    def peers(self) -> list[str]:
        """The other servers that were measured."""
        return [name for name in PEERS if any(name in cell["who"] for cell in self.result["cells"])]

    def bare_us(self, cell: dict[str, Any]) -> float | None:
        """Return the CPU microseconds of the bare run of a cell's rows."""
        known = dict(bare.batch_costs(self.result["bare"], cell["model"], cell["rpc"]))
        return known.get(cell["rows"])

    def model_us(self, cell: dict[str, Any], server: str) -> float | None:
        """Return what the bare run of the batches that the server formed costs per call."""
        rows = median(cell, server, "batch_rows")
        known = bare.batch_costs(self.result["bare"], cell["model"], cell["rpc"])
        if rows is None or not known:
            return None
        return bare.call_share_us(known, rows, cell["rows"])

    def missing_peers(self, cell: dict[str, Any]) -> bool:
        """Whether no peer was measured in a cell."""
        return not any(name in cell["who"] for name in self.peers)

    def peers_ahead(self) -> list[str]:
        """Say where a peer took no more CPU than our server, or answered as many calls.

        Where the ranges over the rounds overlap, that is said, too.
        """
        found = []
        for cell in self.result["cells"]:
            for name in self.peers:
                for series, better in (("cpu_us", -1), ("calls_per_s", 1)):
                    theirs, ours = median(cell, name, series), median(cell, CQ, series)
                    if theirs and ours and better * (ours - theirs) <= 0:
                        found.append(
                            f"{name}, {describe_load(cell)}: {series_label(series)} {theirs:,.0f}, "
                            f"ours {ours:,.0f}{_overlap_note(cell, name, series)}"
                        )
        return found


def median(cell: dict[str, Any], server: str, series: str) -> float | None:
    """Return the median of the rounds, None where there is none."""
    values = cell["who"].get(server, {}).get(series)
    return statistics.median(values) if values else None


def _overlap_note(cell: dict[str, Any], name: str, series: str) -> str:
    theirs, ours = cell["who"][name][series], cell["who"][CQ][series]
    overlap = min(theirs) <= max(ours) and min(ours) <= max(theirs)
    return " (the ranges overlap)" if overlap else ""


def spread(cell: dict[str, Any], server: str, series: str) -> str:
    """Return the median with the lowest and the highest, or a dash."""
    values = cell["who"].get(server, {}).get(series)
    if not values:
        return "–"
    middle = f"{statistics.median(values):,.0f}"
    return f"{middle} ({min(values):,.0f}–{max(values):,.0f})" if len(values) > 1 else middle


def ratio(above: float | None, *below: float | None) -> str:
    """Return a quotient by the sum of what is below, or a dash where something lacks."""
    parts = [each for each in below if each is not None]
    if above is None or len(parts) < len(below) or not sum(parts):
        return "–"
    return f"{above / sum(parts):.2f}"


def format_number(value: float | None, form: str = "{:,.0f}") -> str:
    """Return a figure, or a dash."""
    return "–" if value is None else form.format(value)


def describe_load(cell: dict[str, Any]) -> str:
    """Return what a cell's load is, in words."""
    return f"{cell['rpc']} of {cell['model']}, {describe_rows(cell)}, {cell['in_flight']} in flight"


def describe_rows(cell: dict[str, Any]) -> str:
    """Return the rows of a cell, in words."""
    return f"{cell['rows']} row{'s' if cell['rows'] > 1 else ''}"


def series_label(series: str) -> str:
    """Return what a series is called."""
    return {"cpu_us": "CPU µs per call", "calls_per_s": "calls/s"}[series]


def table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table."""
    heads = list(heads)
    found = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*found, *(f"| {' | '.join(line)} |" for line in lines), ""]


def parts(results: Results, cell: dict[str, Any], server: str = CQ) -> dict[str, float] | None:
    """Take the CPU of one call apart: the model, the transport, the rest of the server.

    The model is the bare run of batches as large as the server formed, per call; the transport is
    the empty call of as many bytes under the same load. What remains can be negative: batches
    save calls to the transport's poller that the empty call makes.
    """
    whole, empty = median(cell, server, "cpu_us"), median(cell, EMPTY, "cpu_us")
    model = results.model_us(cell, server)
    if whole is None or empty is None or model is None:
        return None
    return {"model": model, "transport": empty, "the rest": whole - model - empty}


def times(results: Results, cell: dict[str, Any], server: str = CQ) -> dict[str, float] | None:
    """Take the time of one call apart, one in flight: model, engine, queue, transport, the rest."""
    names = ("p50_us", "queue_us", "engine_us")
    whole, queue, engine = (median(cell, server, name) for name in names)
    empty, bare_us = median(cell, EMPTY, "p50_us"), results.bare_us(cell)
    if whole is None or queue is None or engine is None or empty is None or bare_us is None:
        return None
    model = min(bare_us, engine)
    return {
        "model": model,
        "around the model": engine - model,
        "queue": queue,
        "transport": empty,
        "the rest": whole - engine - queue - empty,
    }
