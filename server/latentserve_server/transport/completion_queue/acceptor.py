"""Asks gRPC core for calls, and makes of each arrival a call of `completion_queue`."""

from __future__ import annotations

import logging
from typing import Any

from latentserve_server.transport.completion_queue.calls import Method, StreamCall, UnaryCall

log = logging.getLogger(__name__)


class Acceptor:
    """Asks for the calls of one method, one after the other."""

    def __init__(self, method: Method, server: Any) -> None:
        self._method = method
        self._make = UnaryCall if method.stream is None else StreamCall
        self._state = server._state

    def ask(self) -> None:
        """Ask the core for the next call; raises ValueError once the server is shutting down."""
        state = self._state
        queue = state.completion_queue
        state.server.request_registered_call(queue, queue, self._method.name, self.arrived)

    def arrived(self, event: Any) -> object:
        """Take a call, or end with the server."""
        if not event.success:
            return self
        ended: object = None
        try:
            self.ask()
        except Exception as error:  # a tag must not raise
            if not isinstance(error, ValueError):
                log.exception("%s takes no calls any more", self._method.name)
            ended = self
        call = self._make(event, self._method)
        self._state.rpc_states.add(call)
        try:
            call.start()
        except Exception:
            log.exception("a call of %s could not be taken", self._method.name)
            if not call.has_events:
                self._state.rpc_states.discard(call)
        return ended
