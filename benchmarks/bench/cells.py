"""What is measured: not every product of model, call, rows, calls in flight and server.

GROUPS says what each group of cells is for; a cell can be in several and is measured once.
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
CALLS_PER_CLIENT = 20  # at least, where connections are many: connecting is part of the CPU
QUEUE_ROWS = 4096  # the server's default: more in flight would be refused

GROUPS = {
    "sizes": "1 to 256 rows with 1, 32 and 128 calls in flight, of the cheapest model, where what "
    "is not the model weighs most. 64 and 256 rows stop at 32 and 16 in flight: 4,096 rows may "
    "wait for a model, the rest is refused.",
    "curve": "1 row with 1 to 128 calls in flight: the shape of throughput against latency. With "
    "more rows the model decides, and the shapes become alike.",
    "models": "a convolutional model and a generator at 1, 16 and 64 rows, 32 in flight: what "
    "stays of the differences when the model costs more. Over cq alone: how transports differ is a "
    "matter of bytes, and seen in the sizes.",
    "calls": "each call once, with 16 rows and 32 in flight, over cq.",
    "workers": "one and two processes, 8 connections, because the kernel spreads connections and "
    "not calls; small and large requests.",
}


@dataclass(frozen=True)
class Cell:
    """One load: this call with so many rows, so many in flight, on so many connections.

    `servers` are the servers that it is put on, `groups` what it is for.
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
        """What makes it the same load as another cell."""
        return (self.model, self.rpc, self.rows, self.in_flight, self.connections)


def cells(peers: Sequence[str]) -> list[Cell]:
    """Return all cells; the peers take part where a model of theirs is called."""
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
    """Return a few cells, some of each group, to try everything out in seconds."""
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
    """Return each load once, with the servers and groups of all cells that ask for it."""
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
