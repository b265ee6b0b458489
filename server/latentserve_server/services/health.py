"""The grpc.health.v1 service, independent of the transport and without threads.

grpcio's own servicer holds one thread for each Watch, or blocks the caller of `set` until every
client has read the status. Here, a Watch costs one entry in a dictionary.
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
    """Implements Check and Watch. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._waiting: dict[Watch, Done] = {}
        self._shutting_down = False

    async def set(self, service: str, status: int) -> None:
        """Set the status of a service or model, and notify its watches."""
        with self._lock:
            if self._shutting_down:
                return
            self._statuses[service] = status
            changed = self._pop_changed()
        _notify(changed)

    async def enter_graceful_shutdown(self) -> None:
        """Set every status to NOT_SERVING permanently."""
        with self._lock:
            self._shutting_down = True
            self._statuses = dict.fromkeys(self._statuses, _NOT_SERVING)
            changed = self._pop_changed()
        _notify(changed)

    def check(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Reply with the status of one service. Raises UnknownService."""
        service = parse(health_pb2.HealthCheckRequest, request).service
        with self._lock:
            status = self._statuses.get(service)
        if status is None:
            raise UnknownService(f"no service or model {service!r} has a health status")
        done(_reply(status))
        return _CompletedCall()

    def watch(self, request: bytes) -> Watch:
        """Return a stream of the status of one service: the current one, then every change."""
        return Watch(self, parse(health_pb2.HealthCheckRequest, request).service)

    def next_status(self, watch: Watch, done: Done) -> None:
        """Call `done` as soon as the status differs from the watch's last reported one."""
        with self._lock:
            self._waiting[watch] = done
            changed = self._pop_changed(watch)
        _notify(changed)

    def remove(self, watch: Watch) -> None:
        """Remove a watch."""
        with self._lock:
            self._waiting.pop(watch, None)

    def _pop_changed(self, only: Watch | None = None) -> list[tuple[Done, int]]:
        """Remove and return the waiting callbacks with a new status. The lock is held."""
        changed = []
        for watch in list(self._waiting) if only is None else (only,):
            status = self._statuses.get(watch.service, _SERVICE_UNKNOWN)
            if status != watch.reported:
                watch.reported = status
                changed.append((self._waiting.pop(watch), status))
        return changed


class Watch:
    """Stream of one Watch: each chunk is a status. It ends when the client cancels it."""

    exhausted = False

    def __init__(self, health: HealthService, service: str) -> None:
        self._health = health
        self.service = service
        self.reported: int | None = None

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Call `done` with the next status, which may come hours later."""
        self._health.next_status(self, done)
        return self

    def cancel(self) -> None:
        """End the watch."""
        self._health.remove(self)


class _CompletedCall:
    """A Check, which completes before it can be cancelled."""

    def cancel(self) -> None:
        """Do nothing."""


def _notify(changed: list[tuple[Done, int]]) -> None:
    """Call the callbacks. The lock is not held, since they may request the next status."""
    for done, status in changed:
        done(_reply(status))


def _reply(status: int) -> Reply:
    message = health_pb2.HealthCheckResponse(status=status)
    return Reply(message.SerializeToString)
