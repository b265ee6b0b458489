"""Loads of the benchmark: selected combinations of model, call, rows, calls in flight and server.

GROUPS describes the purpose of each group of cells; a cell in several groups is measured once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mlp_model

EMPTY, CQ, AIO, CQ2, AIO2 = "empty call", "cq", "aio", "cq × 2", "aio × 2"
TRANSPORTS = {CQ: ("cq", 1), AIO: ("aio", 1), CQ2: ("cq", 2), AIO2: ("aio", 2)}
TRITON, MLSERVER, KSERVE = "triton", "mlserver", "kserve"
MLSERVER_PLAIN = "mlserver unbatched"
MLP, CONV, GENERATOR, DENOISER = mlp_model.NAME, "mnist-ae", "mnist-vae-gan", "mnist-dae"
CALLS_PER_CLIENT = 20  # minimum with many connections, because the CPU includes connection set-up
QUEUE_ROWS = 4096  # default of the server; more queued rows would be refused

GROUPS = {
    "sizes": "1 to 256 rows with 1, 32 and 128 calls in flight, with the cheapest model, for which "
    "the overhead is largest. 64 and 256 rows end at 32 and 16 calls in flight, because a model "
    "accepts 4,096 queued rows and refuses more.",
    "curve": "1 row with 1 to 128 calls in flight: throughput against latency. With more rows, the "
    "model dominates, and the curves become similar.",
    "models": "a convolutional model and a generator at 1, 16 and 64 rows, 32 calls in flight: the "
    "differences that remain with more expensive models. Only over cq, because the difference of "
    "the transports depends on the bytes and is visible in the sizes.",
    "calls": "each call once, with 16 rows and 32 calls in flight, over cq.",
    "workers": "one and two worker processes with 8 connections, because the kernel distributes "
    "connections and not calls; small and large requests.",
}


@dataclass(frozen=True)
class Cell:
    """One load: a call with its rows, calls in flight and connections.

    `servers` are the servers that are measured with it, `groups` its purposes.
    """

    model: str
    rpc: str
    rows: int
    in_flight: int
    connections: int
    servers: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """The identity of the load."""
        return (self.model, self.rpc, self.rows, self.in_flight, self.connections)


def cells(peers: Sequence[str]) -> list[Cell]:
    """Return all cells; peers are included for the models that they serve."""
    both, ours = (EMPTY, CQ, AIO), (EMPTY, CQ)
    sizes = [(1, 1), (1, 32), (1, 128), (16, 1), (16, 32), (16, 128)]
    sizes += [(64, 1), (64, 32), (256, 1), (256, 16)]
    with_peers = {(1, 1), (1, 32), (1, 128), (16, 32), (64, 32), (256, 16)}
    found = [
        _cell("sizes", MLP, "Reconstruct", *size, both, peers if size in with_peers else ())
        for size in sizes
    ]
    found += [
        _cell("curve", MLP, "Reconstruct", 1, in_flight, both, peers)
        for in_flight in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    found += [
        _cell("models", model, rpc, rows, 32, ours, peers)
        for model, rpc in ((CONV, "Reconstruct"), (GENERATOR, "Decode"))
        for rows in (1, 16, 64)
    ]
    calls = [(GENERATOR, rpc) for rpc in ("Encode", "Decode", "Reconstruct", "Sample")]
    calls += [(GENERATOR, "SampleStream"), (DENOISER, "Denoise")]
    found += [_cell("calls", model, rpc, 16, 32, ours) for model, rpc in calls]
    found += [
        _cell("workers", MLP, "Reconstruct", rows, in_flight, (EMPTY, *TRANSPORTS), connections=8)
        for rows, in_flight in ((1, 64), (64, 32))
    ]
    return merged(found)


def tiny(peers: Sequence[str]) -> list[Cell]:
    """Return a few cells of each group, for a test of the benchmark within seconds."""
    few = [
        _cell("sizes", MLP, "Reconstruct", 1, 1, (EMPTY, CQ, AIO), peers),
        _cell("sizes", MLP, "Reconstruct", 1, 4, (EMPTY, CQ, AIO), peers),
        _cell("sizes", MLP, "Reconstruct", 64, 2, (EMPTY, CQ, AIO), peers),
        _cell("curve", MLP, "Reconstruct", 1, 1, (EMPTY, CQ, AIO), peers),
        _cell("curve", MLP, "Reconstruct", 1, 4, (EMPTY, CQ, AIO), peers),
        _cell("models", GENERATOR, "Decode", 1, 4, (EMPTY, CQ), peers),
        _cell("calls", GENERATOR, "SampleStream", 3, 2, (EMPTY, CQ)),
        _cell("calls", DENOISER, "Denoise", 3, 2, (EMPTY, CQ)),
        _cell("workers", MLP, "Reconstruct", 1, 4, (EMPTY, CQ, CQ2), connections=4),
    ]
    return merged(few)


def merged(every: Iterable[Cell]) -> list[Cell]:
    """Return each load once, with the servers and groups of all its cells."""
    found: dict[tuple[object, ...], Cell] = {}
    for cell in every:
        if cell.rows * cell.in_flight > QUEUE_ROWS:
            raise ValueError(f"{cell.key}: more than {QUEUE_ROWS} rows in flight are refused")
        before = found.get(cell.key, cell)
        found[cell.key] = dataclasses.replace(
            before,
            servers=tuple(dict.fromkeys((*before.servers, *cell.servers))),
            groups=tuple(dict.fromkeys((*before.groups, *cell.groups))),
        )
    return list(found.values())


def _cell(
    group: str,
    model: str,
    rpc: str,
    rows: int,
    in_flight: int,
    servers: Sequence[str],
    peers: Sequence[str] = (),
    connections: int = 1,
) -> Cell:
    return Cell(model, rpc, rows, in_flight, connections, (*servers, *peers), (group,))
