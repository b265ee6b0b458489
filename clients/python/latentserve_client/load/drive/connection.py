"""One connection for load: what a generator needs of it, and how it is chosen.

`completion` costs half of the CPU of grpc.aio (docs/load-testing.md has the figures), but on calls
that are private to grpcio. So it is tried before the load, and where it does not answer, grpc.aio
takes over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from latentserve_client.load.plan.workload import CallKind

log = logging.getLogger(__name__)

_TRIAL_EXTRA_S = 5.0
_PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class CallResult:
    """How a call ended."""

    code: int  # gRPC status code, 0 is OK
    message: bytes | None  # the reply of a unary call
    details: str = ""  # the server's message for a failure
    pushback_s: float | None = None  # how long the server wants to be left alone; below 0: for good


OnDone: TypeAlias = Callable[[CallResult], None]
OnMessage: TypeAlias = Callable[[bytes], None]


class Connection(Protocol):
    """Sends requests; calls back from a thread of its own."""

    def start(
        self,
        kind: CallKind,
        payload: bytes,
        timeout_s: float,
        done: OnDone,
        on_message: OnMessage | None,
    ) -> None:
        """Start a call; `done` comes once, and before it `on_message` for each of a stream."""

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""

    def close(self) -> None:
        """Cancel what is in flight and close."""


def pushback_s(metadata: Any) -> float | None:
    """Return the seconds of `grpc-retry-pushback-ms`, None where there is none."""
    for key, value in metadata or ():
        if key == _PUSHBACK:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0  # the specification: what cannot be read means never
    return None
