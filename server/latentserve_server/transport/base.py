"""What the application needs of a transport, and what a transport is given to serve.

There are two: `transport_aio` on the public grpc.aio API, and `transport_cq` on grpcio's
completion queue. The services know neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from latentserve_server.batching.batcher import Batcher
from latentserve_server.errors import SettingsError
from latentserve_server.services.call import ChunkStream, UnaryMethod
from latentserve_server.transport.security import TokenGuard

# Above this, parsing and checking a request takes long enough to leave the transport's thread.
LARGE_REQUEST_BYTES = 256 * 1024

# See `Transport.hand_over`.
HOLD_BEFORE_S = 0.1
HOLD_AFTER_S = 0.2
# gRPC cuts calls off by itself so much later than we would: `stop` decides, not a race.
CUT_OFF_MARGIN_S = 5.0

StreamMethod = Callable[[bytes], ChunkStream]


@dataclass(frozen=True)
class Service:
    """The methods of one service, by their names in the contract.

    `drains` says that a stop waits for its calls and refuses new ones; health, which must
    answer until the end and whose watches never end, does not.
    """

    name: str
    unary: Mapping[str, UnaryMethod]
    streams: Mapping[str, StreamMethod] = field(default_factory=dict)
    drains: bool = True


@dataclass(frozen=True)
class Endpoint:
    """Where and how to listen: HOST:PORT, TLS (None: plain text), tokens, channel arguments."""

    listen: str
    credentials: Any = None
    guard: TokenGuard = field(default_factory=TokenGuard)
    options: Sequence[tuple[str, int]] = ()


class HealthBoard(Protocol):
    """The statuses that grpc.health.v1 gives out."""

    async def set(self, service: str, status: int) -> None:
        """Set the status of a service or model."""

    async def enter_graceful_shutdown(self) -> None:
        """Turn everything NOT_SERVING, for good."""


class Transport(Protocol):
    """Serves services, health and reflection on one port."""

    @property
    def health(self) -> HealthBoard:
        """What health answers."""

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and have not ended; those of health are not counted."""

    def take(self, batcher: Batcher) -> bool:
        """Answer the offer of a batcher (see there): whether the transport runs its batches."""

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Serve and return the port; raises SettingsError if it cannot be had."""

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for those in flight; False where some are left."""

    async def hand_over(self, *, timeout_s: float) -> bool:
        """Close the port while others listen on it, and wait for the calls in flight.

        Callers are told to connect anew (GOAWAY), which takes them to another process. gRPC
        cancels a call that crosses that message on the wire. So replies are held for a moment
        around it: a caller who waits for one sends nothing. False where calls are left.
        """

    async def stop(self, grace_s: float) -> None:
        """Cut off what is left after `grace_s`, and close the port."""


def bind(server: Any, endpoint: Endpoint) -> int:
    """Return the port that a grpc server bound; raises SettingsError that says what to change."""
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
