"""Interface of a connection, and the result of a call."""

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
    """Status and reply of a finished call."""

    code: int  # gRPC status code, 0 is OK
    message: bytes | None  # serialized reply of a successful unary call
    details: str = ""  # error message of the server
    pushback_s: float | None = (
        None  # delay before a retry that the server requests; negative: no retry
    )


OnDone: TypeAlias = Callable[[CallResult], None]
OnMessage: TypeAlias = Callable[[bytes], None]


class Connection(Protocol):
    """Sends requests, and invokes callbacks from a separate thread."""

    def start(
        self,
        kind: CallKind,
        payload: bytes,
        timeout_s: float,
        done: OnDone,
        on_message: OnMessage | None,
    ) -> None:
        """Start a call: `on_message` runs for each message of a stream, then `done` once."""

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""

    def close(self) -> None:
        """Cancel the calls in flight and close the connection."""


def pushback_s(metadata: Any) -> float | None:
    """Return the seconds of `grpc-retry-pushback-ms`, None without this entry."""
    for key, value in metadata or ():
        if key == _PUSHBACK:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0  # specification: an unparsable value means no retry
    return None
