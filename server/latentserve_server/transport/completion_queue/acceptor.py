"""Acceptor of new calls from gRPC core, one for each method."""

from __future__ import annotations

import logging
from typing import Any

from latentserve_server import exit_status
from latentserve_server.transport.completion_queue.calls import Method, UnaryCall
from latentserve_server.transport.completion_queue.stream_call import StreamCall

log = logging.getLogger(__name__)


class Acceptor:
    """Accepts the calls of one method, one after the other."""

    def __init__(self, method: Method, server: Any) -> None:
        self._method = method
        self._make = UnaryCall if method.stream is None else StreamCall
        self._state = server._state

    def request_next(self) -> None:
        """Request the next call from gRPC core. Raises ValueError during shutdown."""
        state = self._state
        queue = state.completion_queue
        state.server.request_registered_call(queue, queue, self._method.name, self.accept)

    def accept(self, event: Any) -> object:
        """Start a new call; return this object if no more calls come, otherwise None."""
        if not event.success:
            return self
        ended: object = None
        try:
            self.request_next()
        except Exception as error:  # noqa: BLE001 - a tag must not raise
            if not isinstance(error, ValueError):
                # No call of this method would be accepted any more.
                exit_status.end_failed(f"the acceptor of {self._method.name}", error)
            ended = self
        call = self._make(event, self._method)
        self._state.rpc_states.add(call)
        try:
            call.start()
        except Exception:
            log.exception("a call of %s could not be started", self._method.name)
            if not call.has_events:
                self._state.rpc_states.discard(call)
        return ended
