"""The bare run: what a graph alone costs in ONNX Runtime, in a process of its own.

    python -m bench.bare SECONDS '[["graph.onnx", "images", [1, 28, 28], 64], ...]'

One thread. Prints a JSON list: for each graph and number of rows, microseconds of CPU per run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.cells import MLP, Cell
from bench.models import Model, operation

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Batches that the server forms from small requests: their bare runs are measured as well."""
TIMEOUT_S = 120.0


def points(cells: list[Cell]) -> list[tuple[str, str, int]]:
    """Return (model, operation's call, rows) of all that the cells need."""
    found = {(cell.model, cell.rpc, cell.rows): None for cell in cells}
    small = [cell for cell in cells if cell.model == MLP and cell.rows == 1]
    most = max((cell.in_flight for cell in small), default=0)
    found |= {(MLP, "Reconstruct", rows): None for rows in BATCHES if rows <= most}
    return sorted(found)


def cpu_us(
    models: dict[str, Model], wanted: list[tuple[str, str, int]], seconds: float
) -> list[float]:
    """Return the CPU microseconds of one run of each point, measured for so long each."""
    given = [
        [
            str(models[model].graph(rpc)),
            models[model].tensors(rpc)[0],
            models[model].row_shape(rpc),
            rows,
        ]
        for model, rpc, rows in wanted
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "bench.bare", str(seconds), json.dumps(given)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    found: list[float] = json.loads(ran.stdout)
    return found


def batch_costs(bare: list[dict[str, Any]], model: str, rpc: str) -> list[tuple[int, float]]:
    """Return (rows, median CPU microseconds) of the bare runs of a call, in order."""
    return sorted(
        (each["rows"], float(np.median(each["cpu_us"])))
        for each in bare
        if each["model"] == model and operation(each["rpc"]) == operation(rpc)
    )


def call_share_us(known: list[tuple[int, float]], batch_rows: float, rows: int) -> float:
    """Return what `rows` cost as their part of a batch, between the batches that were measured."""
    batch_rows = max(batch_rows, 1.0)
    whole = np.interp(batch_rows, [each for each, _ in known], [us for _, us in known])
    return float(whole) / batch_rows * rows


def _main() -> None:
    seconds, found, sessions = float(sys.argv[1]), [], {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for graph, name, shape, rows in json.loads(sys.argv[2]):
        if graph not in sessions:
            sessions[graph] = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        session = sessions[graph]
        feeds = {name: np.random.default_rng(0).random((rows, *shape), dtype=np.float32)}
        for _ in range(5):
            session.run(None, feeds)
        runs, started = 0, time.process_time()
        while time.process_time() - started < seconds or not runs:
            session.run(None, feeds)
            runs += 1
        found.append((time.process_time() - started) / runs * 1e6)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
