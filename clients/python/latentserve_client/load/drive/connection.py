"""One connection for load: what a generator needs of it, and how it is chosen.

`completion` costs half of the CPU of grpc.aio (docs/load-testing.md has the figures), but on calls
that are private to grpcio. So it is tried before the load, and where it does not answer, grpc.aio
takes over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc

from latentserve_client._channel import load_channel_options
from latentserve_client.load.plan.workload import Kind, Request

log = logging.getLogger(__name__)

_TRIAL_EXTRA_S = 5.0
_PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended."""

    code: int  # gRPC status code, 0 is OK
    message: bytes | None  # the reply of a unary call
    details: str = ""  # the server's message for a failure
    pushback_s: float | None = None  # how long the server wants to be left alone; below 0: for good


Done: TypeAlias = Callable[[Ended], None]
OnMessage: TypeAlias = Callable[[bytes], None]


class Connection(Protocol):
    """Sends requests; calls back from a thread of its own."""

    def start(
        self, kind: Kind, payload: bytes, timeout_s: float, done: Done, on_message: OnMessage | None
    ) -> None:
        """Start a call; `done` comes once, and before it `on_message` for each of a stream."""

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""

    def close(self) -> None:
        """Cancel what is in flight and close."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect; pickles, for several processes."""

    server: str
    max_message_bytes: int
    metadata: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    tls_ca: bytes | None = None
    tls_cert: bytes | None = None
    tls_key: bytes | None = None

    def options(self) -> list[tuple[str, int | str]]:
        """Return channel arguments: a connection of its own, and no retry behind our back."""
        return load_channel_options(self.server, self.max_message_bytes)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return TLS credentials, None for plain text."""
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(self.tls_ca, self.tls_key, self.tls_cert)

    def channel(self) -> grpc.Channel:
        """Return a channel of the sync API with a connection of its own."""
        credentials = self.credentials()
        if credentials is None:
            return grpc.insecure_channel(self.server, self.options())
        return grpc.secure_channel(self.server, credentials, self.options())


def open_connections(
    target: Target, count: int, transport: str, trial: tuple[Kind, Request], timeout_s: float
) -> tuple[Sequence[Connection], str]:
    """Open connections, and return them with the name of the transport that they are on.

    Falls back from "cq" to "aio", with a warning, where one call of the trial is not answered: not
    by an error status, which is an answer, but by an exception or by nothing at all.
    """
    from latentserve_client.load.drive.aio_connection import AioConnections

    if transport == "cq":
        first = None
        try:
            # Here, because even the import may fail with another grpcio.
            from latentserve_client.load.drive.completion_queue_connection import (
                CompletionQueueConnection,
            )

            first = CompletionQueueConnection(target)
            _try(first, *trial, timeout_s)
        except Exception as error:  # noqa: BLE001 - private calls: whatever they raise
            log.warning("completion queue: %r; falling back to grpc.aio, which is slower", error)
            if first is not None:
                with contextlib.suppress(Exception):
                    first.close()
        else:
            return [first, *(CompletionQueueConnection(target) for _ in range(count - 1))], "cq"
    return AioConnections.open(target, count), "aio"


def pushback_s(metadata: Any) -> float | None:
    """Return the seconds of `grpc-retry-pushback-ms`, None where there is none."""
    for key, value in metadata or ():
        if key == _PUSHBACK:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0  # the specification: what cannot be read means never
    return None


def _try(connection: Connection, kind: Kind, request: Request, timeout_s: float) -> None:
    ended = threading.Event()
    connection.start(kind, request.payload, timeout_s, lambda _: ended.set(), lambda _: None)
    if not ended.wait(timeout_s + _TRIAL_EXTRA_S):
        raise TimeoutError("a call on it did not end")
