"""The thread that polls the completion queue of a `grpc.server`, in place of grpcio's own.

It does what `grpc._server._serve` does, and besides: the events of our own calls go to them
directly, and where nothing else has arrived it runs the batches that these calls brought.
All of it is private to grpcio: `transport_cq.why_unusable` tries it out at every start.
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

_AT_ONCE = 0.0  # a deadline that has passed: poll takes what is there
_LONGEST_POLL_S = 60.0
_NEEDED = (
    "_ServerStage",
    "_process_event_and_continue",
    "_request_call",
    "_request_registered_call",
    "_stop_serving",
)


def missing() -> list[str]:
    """Return the names that this module needs and this grpcio does not have."""
    return [f"grpc._server.{name}" for name in _NEEDED if not hasattr(_server, name)]


def start(server: Any, inline: InlineExecution) -> None:
    """Start a `grpc.server` that has its port, as `grpc._server._start` does."""
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
    nothing = cygrpc.CompletionType.queue_timeout
    inline.begin()
    try:
        while True:
            event = poll(_AT_ONCE if inline else time.time() + _LONGEST_POLL_S)
            if event.completion_type == nothing:
                if inline:
                    inline.run()
                continue
            try:
                if not _dispatch(state, event):
                    return
            except Exception:  # one call's; the others go on
                log.exception("an event could not be handled")
            # The event may hold a call that is over: its end must not wait for the next event.
            event = None
            if inline and inline.due:
                inline.run()
    finally:
        inline.end()


def _dispatch(state: Any, event: Any) -> bool:
    """Give an event to whom it is for; False after the last one."""
    tag = event.tag
    if tag.__class__ is not MethodType:  # grpc.server's own: strings and functions
        return bool(_server._process_event_and_continue(state, event))
    ended = tag(event)
    if ended is None:
        return True
    with state.lock:
        state.rpc_states.remove(ended)
        return not _server._stop_serving(state)
