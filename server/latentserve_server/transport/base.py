"""Interface between the application and its transports.

`transport.aio` implements it on the public grpc.aio API, and `transport.completion_queue` on
grpcio's completion queue. The services depend on neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from latentserve_server.batching.batcher import Batcher
from latentserve_server.errors import SettingsError
from latentserve_server.services.call import ChunkStream, UnaryMethod
from latentserve_server.transport.security import TokenGuard

# A larger request is parsed and checked on another thread than the transport's.
LARGE_REQUEST_BYTES = 256 * 1024

# Seconds before and after GOAWAY in which replies are held; see `Transport.hand_over`.
HOLD_BEFORE_S = 0.1
HOLD_AFTER_S = 0.2
# Added to the timeout given to gRPC, so that `stop` cuts calls off, not gRPC's own timer.
CUT_OFF_MARGIN_S = 5.0

StreamMethod = Callable[[bytes], ChunkStream]


@dataclass(frozen=True)
class Service:
    """The methods of one service by RPC name.

    If `drains`, a drain waits for the service's calls and refuses new ones. Health does not
    drain, since it must be served until the end and its watches do not end.
    """

    name: str
    unary: Mapping[str, UnaryMethod]
    streams: Mapping[str, StreamMethod] = field(default_factory=dict)
    drains: bool = True


@dataclass(frozen=True)
class Endpoint:
    """Address (HOST:PORT), TLS credentials (None: plain text), tokens and channel arguments."""

    listen: str
    credentials: Any = None
    guard: TokenGuard = field(default_factory=TokenGuard)
    options: Sequence[tuple[str, int]] = ()


class HealthStatuses(Protocol):
    """The statuses that grpc.health.v1 reports."""

    async def set(self, service: str, status: int) -> None:
        """Set the status of a service or model."""

    async def enter_graceful_shutdown(self) -> None:
        """Set every status to NOT_SERVING permanently."""


class Transport(Protocol):
    """Serves services, health and reflection on one port."""

    @property
    def health(self) -> HealthStatuses:
        """Statuses of the health service."""

    @property
    def in_flight(self) -> int:
        """Number of calls that were admitted and have not ended, without health's."""

    @property
    def turns(self) -> int | None:
        """Number that changes several times a second while the transport's thread is alive.

        None if the transport has no thread of its own, or has been stopped.
        """

    def take(self, batcher: Batcher) -> bool:
        """Accept or decline to run the batches of a batcher (see `Batcher`)."""

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Serve and return the port. Raises SettingsError if the port cannot be bound."""

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for calls in flight; return False after the timeout."""

    async def hand_over(self, *, timeout_s: float) -> bool:
        """Close a port that other processes share, and wait for calls in flight.

        GOAWAY makes clients reconnect, to another process. gRPC cancels a call that crosses
        GOAWAY on the wire. So replies are held shortly before and after it, since a client that
        waits for a reply sends no new call. Returns False after the timeout.
        """

    async def stop(self, grace_s: float) -> None:
        """Cut off the calls that are in flight after `grace_s`, and close the port."""


def bind(server: Any, endpoint: Endpoint) -> int:
    """Bind the port of a grpc server and return it. Raises SettingsError."""
    try:
        port: int = (
            server.add_secure_port(endpoint.listen, endpoint.credentials)
            if endpoint.credentials
            else server.add_insecure_port(endpoint.listen)
        )
    except RuntimeError as error:
        raise SettingsError(
            f"--listen {endpoint.listen} cannot be used: the port is taken, or the address "
            "is not one of this machine"
        ) from error
    return port
