"""CSV form of the report: one line per run and kind of call."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentserve_client.load.report.data import PERCENTILES, load_text

_LATENCY = ("mean_ms", *(f"p{percent:g}_ms" for percent in PERCENTILES), "max_ms")
_TIMINGS = ("queue_ms", "engine_ms", "queue_share", "engine_share", "batch_rows")
_COUNTS = ("calls", "errors", "error_share", "retries", "rate_per_s", "rows_per_s")
_SERVER = ("cpu_us_per_call", "mean_batch_rows", "memory_mib_after")
COLUMNS = (
    "started", "server", "load", "loop", "concurrency", "rate_asked_per_s", "call", "measured_s",
    "ended", *_COUNTS, *_LATENCY, *(f"from_send_{name}" for name in _LATENCY), *_TIMINGS,
    "late_calls", *(f"server_{name}" for name in _SERVER), "tester_cpu_us_per_call",
)  # fmt: skip


def write_csv(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as CSV; lines with "all" as the call sum up all kinds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run in report["runs"]:
            for data in (*run["kinds"], {"label": "all", **run}):
                writer.writerow(_line(report, run, data))


def _line(
    report: Mapping[str, Any], run: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    timings, load = data.get("timings", {}), run["load"]
    return {
        "started": report["started"],
        "server": report["server"]["address"],
        "load": load_text(load),
        "loop": load["loop"],
        "concurrency": load.get("concurrency", ""),
        "rate_asked_per_s": load["segments"][0]["from_per_s"] if "segments" in load else "",
        "call": data["label"],
        "measured_s": run["measured_s"],
        "ended": run["ended"],
        **{name: data[name] for name in _COUNTS},
        **{name: data["latency"][name] for name in _LATENCY},
        **{f"from_send_{name}": data["latency_from_send"][name] for name in _LATENCY},
        **{name: timings.get(name, "") for name in _TIMINGS},
        "late_calls": run["late"]["calls"],
        **{f"server_{name}": run.get("server", {}).get(name, "") for name in _SERVER},
        "tester_cpu_us_per_call": run["tester"]["cpu_us_per_call"],
    }
