"""How cost grows with the number of loaded models, with connections, and with hours."""

from __future__ import annotations

import contextlib
import csv
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import processes, requests, servers
from bench.cells import CALLS_PER_CLIENT, CQ, MLP, Cell
from bench.models import Model, write_copies
from bench.servers import Server
from bench.turns import PROBE_CALLS, turn

MODELS = (1, 10, 100)
CLIENTS = (1, 10, 100, 1000)
WARM_CALLS = 500
_SAMPLE_INTERVAL_S = 0.05


def number_of_models(
    counts: Sequence[int], scratch: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure servers that hold so many models, of which one is called, in turns."""
    with contextlib.ExitStack() as stack:
        held: list[tuple[int, Server, Cell, requests.Prepared]] = []
        for count in counts:
            root = scratch / f"models-{count}"
            first = write_copies(root, count)[0]
            flags = ("--max-versions", str(max(64, count)))
            server = servers.own(f"{count} models", root, scratch, "cq", 1, *flags)
            stack.callback(server.stop)
            server.wait(_checked_call(server, first))
            prepared = requests.prepare(server.address, first, "Reconstruct", 1, peer=False)
            held.append((count, server, _cell(first.name, 32, 1), prepared))
        found: list[dict[str, Any]] = [
            {
                "models": count,
                "start_s": round(server.start_s, 3),
                "memory_mb": round(processes.memory_mb(server.pids), 1),
                "cpu_us": [],
            }
            for count, server, _, _ in held
        ]
        _take_turns([each[1:] for each in held], found, rounds, seconds)
    return found


def number_of_clients(
    counts: Sequence[int], exports: Path, model: Model, scratch: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure one server with so many connections, a call in flight on each."""
    flags = ("--max-connections", str(max(counts) + 64))
    server = servers.own("clients", exports, scratch, "cq", 1, *flags)
    try:
        server.wait(_checked_call(server, model))
        prepared = requests.prepare(server.address, model, "Reconstruct", 1, peer=False)
        every = [(server, _cell(MLP, count, count), prepared) for count in counts]
        found: list[dict[str, Any]] = [{"clients": count, "cpu_us": []} for count in counts]
        # The memory of all before the turns: it is not given back, so that the order counts, and
        # what the first calls take must be taken before.
        turn(server, prepared, _cell(MLP, 1, 1), WARM_CALLS)
        for (_, cell, _), results in zip(every, found, strict=True):
            with _sample_memory(server) as largest:
                turn(server, prepared, cell, max(PROBE_CALLS, 10 * cell.in_flight))
            results["resident_mb"] = round(max(largest), 1)
        _take_turns(every, found, rounds, seconds, CALLS_PER_CLIENT)
    finally:
        server.stop()
    return found


def hours(folder: Path) -> list[dict[str, Any]]:
    """Read the samples of soaks, `soak-*.csv`, if there are any; at most 200 points of each."""
    found = []
    for path in sorted(folder.glob("soak-*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        rows = rows[:: max(1, len(rows) // 200)]
        found.append(
            {
                "name": path.stem.removeprefix("soak-"),
                "seconds": [float(row["seconds"]) for row in rows],
                "calls": [int(row["calls"]) for row in rows],
                "resident_mb": [float(row["resident_mb"]) for row in rows],
            }
        )
    return found


def _take_turns(
    every: Sequence[tuple[Server, Cell, requests.Prepared]],
    found: list[dict[str, Any]],
    rounds: int,
    seconds: float,
    least_calls: int = 4,
) -> None:
    rates: dict[int, float] = {}
    for number in range(rounds + 1):  # the first one only says how many calls fit
        for index, (server, cell, prepared) in enumerate(every):
            wanted = rates[index] * seconds if number else PROBE_CALLS
            calls = max(int(wanted), least_calls * cell.in_flight)
            results, took_s = turn(server, prepared, cell, calls)
            rates[index] = calls / took_s
            if number:
                found[index]["cpu_us"].append(float(f"{results['cpu_us']:.5g}"))


def _checked_call(server: Server, model: Model) -> Callable[[], object]:
    return lambda: requests.prepare(server.address, model, "Reconstruct", 1, peer=False)


def _cell(model: str, in_flight: int, connections: int) -> Cell:
    return Cell(model, "Reconstruct", 1, in_flight, connections, (CQ,), ())


@contextlib.contextmanager
def _sample_memory(server: Server) -> Iterator[list[float]]:
    """Look at the server's memory while a load runs."""
    seen, ended = [processes.resident_mb(server.pids)], threading.Event()

    def look() -> None:
        while not ended.wait(_SAMPLE_INTERVAL_S):
            seen.append(processes.resident_mb(server.pids))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
