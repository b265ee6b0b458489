"""Rounds in which all servers take turns at each cell, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc

import h2load
from bench import processes, requests
from bench.cells import EMPTY, Cell
from bench.models import Model
from bench.requests import Prepared
from bench.servers import Server

PROBE_CALLS = 64
FAILURES = (h2load.CallsFailed, requests.WrongReply, grpc.RpcError, OSError)
_SERIES = ("cpu_us", "calls_per_s", "p50_us", "p99_us", "queue_us", "engine_us", "batch_rows")


def turn(
    server: Server, prepared: Prepared, cell: Cell, calls: int
) -> tuple[dict[str, float], float]:
    """Put one load on one server; return its results and the seconds that it took.

    CPU is of all the server's processes, per call. Raises CallsFailed where calls were refused.
    """
    pids = server.pids
    totals, before = server.totals(), processes.cpu_s(pids)
    started = time.monotonic()
    load = h2load.load(
        server.address,
        prepared.method,
        prepared.request,
        calls=calls,
        in_flight=cell.in_flight,
        connections=cell.connections,
        reply_bytes=requests.min_reply_bytes(prepared),
    )
    took_s = time.monotonic() - started
    used_s = processes.cpu_s(pids) - before
    results = {
        "cpu_us": used_s / calls * 1e6,
        "calls_per_s": load.calls_per_s,
        "p50_us": load.p50_us,
        "p99_us": load.p99_us,
    }
    if totals:
        after = server.totals()
        more = {name: after[name] - totals[name] for name in totals}
        if more["calls"] < calls:
            raise h2load.CallsFailed(f"{more['calls']:.0f} of {calls} calls were admitted")
        results["queue_us"] = more["queue_s"] / more["calls"] * 1e6
        results["engine_us"] = more["engine_s"] / calls * 1e6
        results["batch_rows"] = more["rows"] / max(more["batches"], 1)
    return results, took_s


class Turns:
    """What the cells gave so far: results of each server in each round."""

    def __init__(
        self,
        cells: list[Cell],
        servers: Mapping[str, Server],
        models: Mapping[str, Model],
        seconds: float,
    ) -> None:
        self.cells = cells
        self.servers = servers
        self.seconds = seconds
        self.missing: dict[str, None] = {}
        self._models = models
        self._prepared: dict[tuple[str, str, str, int], Prepared] = {}
        self._rates: dict[tuple[object, ...], float] = {}
        self._found: dict[tuple[object, ...], dict[str, list[float]]] = {}

    def warm_up(self) -> None:
        """Check an answer of each kind, and learn how many calls fit into a turn."""
        for cell in self.cells:
            for server_name in self._running(cell):
                self._try(cell, server_name, self._probe)

    def round(self) -> None:
        """Let all take one turn at each cell."""
        for cell in self.cells:
            for server_name in self._running(cell):
                if (cell.key, server_name) in self._rates:
                    self._try(cell, server_name, self._measure)

    def data(self) -> list[dict[str, Any]]:
        """Return the cells with what was measured, as plain values."""
        return [
            {
                "model": cell.model,
                "rpc": cell.rpc,
                "rows": cell.rows,
                "in_flight": cell.in_flight,
                "connections": cell.connections,
                "groups": list(cell.groups),
                "who": {
                    server_name: self._found[cell.key, server_name]
                    for server_name in cell.servers
                    if (cell.key, server_name) in self._found
                },
            }
            for cell in self.cells
        ]

    def _running(self, cell: Cell) -> list[str]:
        return [server_name for server_name in cell.servers if server_name in self.servers]

    def _try(self, cell: Cell, server_name: str, measure: Callable[[Cell, str], None]) -> None:
        try:
            measure(cell, server_name)
        except FAILURES as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            self._rates.pop((cell.key, server_name), None)
            self.missing[
                f"{server_name}, {cell.rpc} of {cell.model}, {cell.rows} rows, {cell.in_flight} in "
                f"flight: {reason}"
            ] = None

    def _probe(self, cell: Cell, server_name: str) -> None:
        calls = max(PROBE_CALLS, 2 * cell.in_flight)
        _, took_s = turn(self.servers[server_name], self._prepare(cell, server_name), cell, calls)
        self._rates[cell.key, server_name] = calls / took_s

    def _measure(self, cell: Cell, server_name: str) -> None:
        calls = self._calls(cell, server_name)
        results, took_s = turn(
            self.servers[server_name], self._prepare(cell, server_name), cell, calls
        )
        self._rates[cell.key, server_name] = calls / took_s
        found = self._found.setdefault((cell.key, server_name), {})
        for name in _SERIES:
            if name in results:
                found.setdefault(name, []).append(float(f"{results[name]:.5g}"))

    def _calls(self, cell: Cell, server_name: str) -> int:
        wanted = int(self._rates[cell.key, server_name] * self.seconds)
        return max(wanted, 4 * cell.in_flight)

    def _prepare(self, cell: Cell, server_name: str) -> Prepared:
        key = (server_name, cell.model, cell.rpc, cell.rows)
        if key not in self._prepared:
            self._prepared[key] = self._new(cell, server_name)
        return self._prepared[key]

    def _new(self, cell: Cell, server_name: str) -> Prepared:
        if server_name == EMPTY:
            # As large as our own call, whichever server made that first.
            own = next(each for each in self._running(cell) if each != EMPTY)
            return requests.empty(self._prepare(cell, own))
        server, model = self.servers[server_name], self._models[cell.model]
        return requests.prepare(server.address, model, cell.rpc, cell.rows, peer=server.peer)
