"""What is sent: kinds of calls and requests that are serialised once, before the load."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Long enough that weights come out right and the order has no short period.
_ORDER_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class CallKind:
    """One entry of the mix: calls that are counted together."""

    label: str  # for people, for example "encode mnist-vae rows=1"
    method: str  # gRPC path, for example "/latentserve.v1.GenerativeService/Encode"
    weight: float = 1.0
    streaming: bool = False  # whether the server answers with several messages
    timings_field: int = 0  # number of the reply's Timings field; 0 where there is none


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the pool, ready for the wire."""

    number: int  # position in the pool
    kind: int  # position in `Workload.kinds`
    payload: bytes = b""
    rows: int = 1  # images or latents that it asks for


@dataclass(frozen=True, slots=True)
class Workload:
    """The kinds of calls and the pool of requests; pickles, for several processes."""

    kinds: tuple[CallKind, ...]
    pool: tuple[Request, ...]

    def order(self, seed: int) -> Iterator[Request]:
        """Return requests without end: kinds by their weights, each kind's pool in turn.

        The same seed gives the same order. `next` may be called by several threads.
        """
        weights = np.array([kind.weight for kind in self.kinds])
        # Largest remainders: over one period the counts are those of the weights.
        exact = weights / weights.sum() * _ORDER_LENGTH
        counts = np.floor(exact).astype(int)
        for kind in np.argsort(counts - exact)[: _ORDER_LENGTH - counts.sum()]:
            counts[kind] += 1
        # A kind that is rare is not absent.
        counts = np.maximum(counts, 1)
        kinds = np.repeat(np.arange(len(self.kinds)), counts)
        np.random.default_rng(seed).shuffle(kinds)
        pools = [
            itertools.cycle([request for request in self.pool if request.kind == kind])
            for kind in range(len(self.kinds))
        ]
        # Several rounds of the order, so that pools that are no divisor of it are used whole.
        rounds = 1 if len(self.pool) <= _ORDER_LENGTH else -(-len(self.pool) // _ORDER_LENGTH)
        return itertools.cycle(
            [next(pools[kind]) for _ in range(rounds) for kind in kinds.tolist()]
        )
