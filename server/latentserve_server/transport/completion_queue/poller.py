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
from latentserve_server.vital_thread import VitalThread

log = logging.getLogger(__name__)

_NO_WAIT = 0.0  # a past deadline: poll returns an event that has arrived, or times out at once
_MAX_POLL_S = 0.25  # several signs of life within any --watchdog-s of at least one second
# Batches that may run on the polling thread are expected to take a few milliseconds at most.
_CHECK_S = 0.05
_OVERDUE_CHECKS = 4
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


class Poller:
    """Polls the completion queue of a `grpc.server` whose port is bound, on one thread at a time.

    If a batch takes far longer than expected on the polling thread, another thread polls on, and
    the previous one ends after the batch: no other call waits for a batch that hangs. If a polling
    thread fails, the process ends: no call would be received, refused or cancelled any more.

    Args:
        server: the server.
        inline: inline execution on the polling thread.
    """

    def __init__(self, server: Any, inline: InlineExecution) -> None:
        self._state = server._state
        self._inline = inline
        self._turns = 0
        self._ended = threading.Event()
        self._polling: threading.Thread
        self._successor = VitalThread(self._give_up_overdue, name="polling-successor")

    @property
    def turns(self) -> int | None:
        """Number that changes several times a second while the thread polls; None at the end."""
        return None if self._ended.is_set() else self._turns

    def start(self) -> None:
        """Start the server and the polling thread, as `grpc._server._start` does."""
        state = self._state
        with state.lock:
            state.server.start()
            state.stage = _server._ServerStage.STARTED
            for method in state.registered_method_handlers:
                _server._request_registered_call(state, method)
            _server._request_call(state)
        self._start_polling()
        self._successor.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the threads, except one in a batch that hangs, after the server has stopped."""
        for thread in (self._successor, self._polling):
            thread.join(timeout_s)

    def _start_polling(self) -> None:
        self._polling = VitalThread(self._poll, name="polling")
        self._polling.start()

    def _give_up_overdue(self) -> None:
        """Start another polling thread each time that a batch on the polling thread is overdue."""
        while not self._ended.wait(_CHECK_S):
            batcher = self._inline.give_up_overdue(_OVERDUE_CHECKS)
            if batcher is not None:
                self._start_polling()
                log.warning(
                    "%s: a batch on the polling thread has not finished for %g s; another thread "
                    "polls, and the batches of this model run on the thread of their model",
                    *(batcher.name, _CHECK_S * _OVERDUE_CHECKS),
                )

    def _poll(self) -> None:
        state, inline = self._state, self._inline
        poll = state.completion_queue.poll
        timed_out = cygrpc.CompletionType.queue_timeout
        inline.begin()
        while True:
            self._turns += 1
            event = poll(_NO_WAIT if inline else time.time() + _MAX_POLL_S)
            if event.completion_type == timed_out:
                if inline and not inline.run():
                    return
                continue
            try:
                if not _dispatch(state, event):
                    break
            except Exception:  # of one call, which must not affect other calls
                log.exception("an event could not be handled")
                if not state.due and state.stage is _server._ServerStage.STARTED:
                    raise  # grpc.server has not requested the next call, so none would arrive
            # The event may hold a reference to an ended call, which must be freed now.
            event = None
            if inline and inline.due and not inline.run():
                return
        self._ended.set()
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
