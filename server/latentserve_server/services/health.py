"""grpc.health.v1 as a service without a transport, for those that have no threads to lend.

grpcio's own servicer holds one thread per Watch, or else blocks the caller of `set` until
every watcher has read; a watcher here costs one entry in a set.
"""

from __future__ import annotations

import threading

from grpc_health.v1 import health_pb2

from latentserve_server.codec.request_parser import parse
from latentserve_server.errors import UnknownService
from latentserve_server.services.call import Call, Done, Reply

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """Answers Check and Watch. Everything is safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._waiting: dict[Watch, Done] = {}
        self._shutting_down = False

    async def set(self, service: str, status: int) -> None:
        """Set the status of a service or model, and tell who watches it."""
        with self._lock:
            if self._shutting_down:
                return
            self._statuses[service] = status
            woken = self._take_waiting()
        _tell(woken)

    async def enter_graceful_shutdown(self) -> None:
        """Turn everything NOT_SERVING, for good."""
        with self._lock:
            self._shutting_down = True
            self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
            woken = self._take_waiting()
        _tell(woken)

    def check(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """The status of one service; raises UnknownService."""
        service = parse(health_pb2.HealthCheckRequest, request).service
        with self._lock:
            status = self._statuses.get(service)
        if status is None:
            raise UnknownService(f"there is no health of {service!r}")
        done(_reply(status))
        return _Answered()

    def watch(self, request: bytes) -> Watch:
        """The status of one service, now and whenever it changes."""
        return Watch(self, parse(health_pb2.HealthCheckRequest, request).service)

    def next_status(self, watch: Watch, done: Done) -> None:
        """Tell a watch its status as soon as it differs from the last one told."""
        with self._lock:
            self._waiting[watch] = done
            woken = self._take_waiting(watch)
        _tell(woken)

    def forget(self, watch: Watch) -> None:
        """End a watch."""
        with self._lock:
            self._waiting.pop(watch, None)

    def _take_waiting(self, only: Watch | None = None) -> list[tuple[Done, int]]:
        """Take out the watches that have something to be told. The lock is held."""
        woken = []
        for watch in list(self._waiting) if only is None else (only,):
            status = self._statuses.get(watch.service, _SERVICE_UNKNOWN)
            if status != watch.told:
                watch.told = status
                woken.append((self._waiting.pop(watch), status))
        return woken


class Watch:
    """One Watch: a stream whose next chunk is the next status; it ends when its caller leaves."""

    exhausted = False

    def __init__(self, health: HealthService, service: str) -> None:
        self._health = health
        self.service = service
        self.told: int | None = None

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Call `done` with the next status, perhaps hours later."""
        self._health.next_status(self, done)
        return self

    def cancel(self) -> None:
        """The caller has left."""
        self._health.forget(self)


class _Answered:
    """A Check, which was answered before it could be cancelled."""

    def cancel(self) -> None:
        """Do nothing."""


def _tell(woken: list[tuple[Done, int]]) -> None:
    """Call the callbacks, outside the lock: they may ask for the next status at once."""
    for done, status in woken:
        done(_reply(status))


def _reply(status: int) -> Reply:
    message = health_pb2.HealthCheckResponse(status=status)
    return Reply(message.SerializeToString)
