"""Workload: kinds of calls and a pool of serialized requests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Long enough to represent the weights and to avoid a short period.
_ORDER_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class CallKind:
    """One entry of the mix; its calls are counted together."""

    label: str  # for the report, for example "encode mnist-vae rows=1"
    method: str  # gRPC path, for example "/latentserve.v1.GenerativeService/Encode"
    weight: float = 1.0
    streaming: bool = False  # whether the reply is a stream of messages
    timings_field: int = 0  # field number of Timings in the reply; 0: the reply has none


@dataclass(frozen=True, slots=True)
class Request:
    """One serialized request of the pool."""

    number: int  # position in the pool
    kind: int  # position in `Workload.kinds`
    payload: bytes = b""
    rows: int = 1  # images or latent vectors requested


@dataclass(frozen=True, slots=True)
class Workload:
    """Kinds of calls and pool of requests; picklable, because subprocesses receive it."""

    kinds: tuple[CallKind, ...]
    pool: tuple[Request, ...]

    def order(self, seed: int) -> Iterator[Request]:
        """Return an infinite iterator of requests: kinds by weight, the pool of each kind in turn.

        The same seed gives the same order. Several threads may call `next`.
        """
        weights = np.array([kind.weight for kind in self.kinds])
        # Largest remainder method: the counts of one period are proportional to the weights.
        exact = weights / weights.sum() * _ORDER_LENGTH
        counts = np.floor(exact).astype(int)
        for kind in np.argsort(counts - exact)[: _ORDER_LENGTH - counts.sum()]:
            counts[kind] += 1
        # Each kind occurs at least once.
        counts = np.maximum(counts, 1)
        kinds = np.repeat(np.arange(len(self.kinds)), counts)
        np.random.default_rng(seed).shuffle(kinds)
        pools = [
            itertools.cycle([request for request in self.pool if request.kind == kind])
            for kind in range(len(self.kinds))
        ]
        # Several rounds, so that a pool larger than the period is used completely.
        rounds = 1 if len(self.pool) <= _ORDER_LENGTH else -(-len(self.pool) // _ORDER_LENGTH)
        return itertools.cycle(
            [next(pools[kind]) for _ in range(rounds) for kind in kinds.tolist()]
        )
