"""Polling thread of a `grpc.server`'s completion queue, in place of grpcio's own.

It does the work of `grpc._server._serve`. In addition, it passes the events of this transport's
calls directly to them, and runs their batches inline when no more events have arrived. All of
this is private to grpcio: `server.find_incompatibility` tests it at every start.
"""

from __future__ import annotations

import logging
import threading
import time
from types import MethodType
from typing import Any

from grpc import _server
from grpc._cython import cygrpc

from latentserve_server.transport.completion_queue.inline_execution import InlineExecution

log = logging.getLogger(__name__)

_NO_WAIT = 0.0  # a past deadline: poll returns an event that has arrived, or times out at once
_MAX_POLL_S = 60.0
_REQUIRED = (
    "_ServerStage",
    "_process_event_and_continue",
    "_request_call",
    "_request_registered_call",
    "_stop_serving",
)


def missing() -> list[str]:
    """Return the names that this module requires and the installed grpcio does not have."""
    return [f"grpc._server.{name}" for name in _REQUIRED if not hasattr(_server, name)]


def start(server: Any, inline: InlineExecution) -> None:
    """Start a `grpc.server` whose port is bound, as `grpc._server._start` does."""
    state = server._state
    with state.lock:
        state.server.start()
        state.stage = _server._ServerStage.STARTED
        for method in state.registered_method_handlers:
            _server._request_registered_call(state, method)
        _server._request_call(state)
    threading.Thread(target=_poll, args=(state, inline), name="polling", daemon=True).start()


def _poll(state: Any, inline: InlineExecution) -> None:
    poll = state.completion_queue.poll
    timed_out = cygrpc.CompletionType.queue_timeout
    inline.begin()
    try:
        while True:
            event = poll(_NO_WAIT if inline else time.time() + _MAX_POLL_S)
            if event.completion_type == timed_out:
                if inline:
                    inline.run()
                continue
            try:
                if not _dispatch(state, event):
                    return
            except Exception:  # of one call, which must not affect other calls
                log.exception("an event could not be handled")
            # The event may hold a reference to an ended call, which must be freed now.
            event = None
            if inline and inline.due:
                inline.run()
    finally:
        inline.end()


def _dispatch(state: Any, event: Any) -> bool:
    """Pass an event to its handler; return False after the last event of the server."""
    tag = event.tag
    if tag.__class__ is not MethodType:  # tags of grpc.server are strings and functions
        return bool(_server._process_event_and_continue(state, event))
    ended = tag(event)
    if ended is None:
        return True
    with state.lock:
        state.rpc_states.remove(ended)
        return not _server._stop_serving(state)
