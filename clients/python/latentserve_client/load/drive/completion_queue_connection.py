"""Connection on the completion queue of grpcio: one receiving thread, any sending thread.

`grpc.Channel` wraps `cygrpc.Channel`, whose calls take batches of operations with a tag.
`next_call_event` returns the tag when a batch is complete. A unary call is one batch and one event.
The public API adds locks, futures or an event loop, which a load tester does not need. These calls
are private to grpcio, so `open_connections` makes a trial call first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc._cython import cygrpc

from latentserve_client.load.drive.connection import CallResult, OnDone, OnMessage, pushback_s
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind

log = logging.getLogger(__name__)

_DEFAULTS = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
_CANCELLED = grpc.StatusCode.CANCELLED.value[0]
_CLOSE_LIMIT_S = 10.0


class CompletionQueueConnection:
    """One channel, and the thread that polls its completion queue."""

    def __init__(self, target: Target) -> None:
        self._channel = target.channel()
        self._core: Any = self._channel._channel
        self._metadata = target.metadata or None
        self._handles: dict[str, tuple[bytes, Any]] = {}
        self._calls: set[Any] = set()  # add and discard are atomic
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="load-receive", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""
        return len(self._calls)

    def start(
        self,
        kind: CallKind,
        payload: bytes,
        timeout_s: float,
        done: OnDone,
        on_message: OnMessage | None,
    ) -> None:
        """Start a call."""
        if kind.streaming and on_message is not None:
            self._start_stream(kind.method, payload, timeout_s, done, on_message)
        else:
            self._start_unary(kind.method, payload, timeout_s, done)

    def _start_unary(self, method: str, payload: bytes, timeout_s: float, done: OnDone) -> None:
        # An operation holds C state and must not be reused.
        message = cygrpc.ReceiveMessageOperation(0)
        status = cygrpc.ReceiveStatusOnClientOperation(0)
        operations = (
            cygrpc.SendInitialMetadataOperation(self._metadata, 0),
            cygrpc.SendMessageOperation(payload, 0),
            cygrpc.SendCloseFromClientOperation(0),
            cygrpc.ReceiveInitialMetadataOperation(0),
            message,
            status,
        )
        # The event may arrive before integrated_call returns.
        call: list[Any] = []

        def ended(_: Any) -> None:
            self._calls.discard(call_key)
            done(_ended(status, message.message()))

        call_key = _Call(call)
        self._calls.add(call_key)
        call.append(self._start_call(call_key, method, timeout_s, ((operations, ended),)))

    def _start_stream(
        self, method: str, payload: bytes, timeout_s: float, done: OnDone, on_message: OnMessage
    ) -> None:
        call: list[Any] = []
        call_key = _Call(call)
        stream = _Stream(call, done, on_message, lambda: self._calls.discard(call_key))
        self._calls.add(call_key)
        send = (
            cygrpc.SendInitialMetadataOperation(self._metadata, 0),
            cygrpc.SendMessageOperation(payload, 0),
            cygrpc.SendCloseFromClientOperation(0),
            cygrpc.ReceiveInitialMetadataOperation(0),
        )
        operations = ((send, _no_callback), ((stream.status,), stream.on_status))
        call.append(self._start_call(call_key, method, timeout_s, operations))
        stream.receive()

    def _start_call(self, call_key: _Call, method: str, timeout_s: float, operations: Any) -> Any:
        try:
            return self._integrated(method, timeout_s, operations)
        except BaseException:
            self._calls.discard(call_key)  # no event will end this call
            raise

    def _integrated(self, method: str, timeout_s: float, operations: Any) -> Any:
        known = self._handles.get(method)
        if known is None:
            name = method.encode()
            known = self._handles[method] = (name, self._core.get_registered_call_handle(name))
        name, handle = known
        deadline_s = time.time() + timeout_s
        return self._core.integrated_call(
            _DEFAULTS, name, None, deadline_s, self._metadata, None, operations, None, handle
        )

    def close(self) -> None:
        """Cancel the calls in flight, wait for their end and close the channel.

        The polling thread must end before the channel is closed.
        """
        if self._closing:
            return
        for known in tuple(self._calls):
            known.cancel()
        end_s = time.monotonic() + _CLOSE_LIMIT_S
        while self._calls and time.monotonic() < end_s:
            time.sleep(0.005)
        self._closing = True
        # An event must wake the polling thread: start a call whose deadline has passed.
        operations = (
            cygrpc.SendInitialMetadataOperation(None, 0),
            cygrpc.ReceiveStatusOnClientOperation(0),
        )
        self._integrated("/latentserve/Wake", -1.0, ((operations, _no_callback),))
        self._thread.join(_CLOSE_LIMIT_S)
        if not self._thread.is_alive():
            self._channel.close()

    def _receive(self) -> None:
        next_event = self._core.next_call_event
        while not (self._closing and not self._calls):
            event = next_event()
            tag: Callable[[Any], None] | None = event.tag
            if tag is None:
                continue  # with fork support enabled, polling returns once per second
            try:
                tag(event)
            except Exception:
                log.exception("error in a callback of a call")


class _Call:
    """Cancellable call, hashed by identity."""

    __slots__ = ("_call",)

    def __init__(self, call: list[Any]) -> None:
        self._call = call  # holds the call once it has started

    def cancel(self) -> None:
        for call in self._call:
            call.cancel(_CANCELLED, "the load has ended")


class _Stream:
    """Streaming call: receives the messages one by one, then the status."""

    def __init__(
        self, call: list[Any], done: OnDone, on_message: OnMessage, forget: Callable[[], None]
    ) -> None:
        self.status = cygrpc.ReceiveStatusOnClientOperation(0)
        self._call = call
        self._done, self._on_message, self._forget = done, on_message, forget
        self._lock = threading.Lock()
        self._status_received = self._receiving = self._finished = False

    def receive(self) -> None:
        """Start receiving the next message."""
        message = cygrpc.ReceiveMessageOperation(0)
        with self._lock:
            self._receiving = True
        # False if the call has ended: its status has arrived or will arrive.
        if not self._call[0].operate((message,), lambda _: self._on_received(message)):
            self._stopped_receiving()

    def on_status(self, _: Any) -> None:
        """Record the arrival of the status; pending messages still arrive after it."""
        with self._lock:
            self._status_received = True
        self._finish()

    def _on_received(self, operation: Any) -> None:
        message = operation.message()
        if message is None:
            self._stopped_receiving()
            return
        self._on_message(message)
        self.receive()

    def _stopped_receiving(self) -> None:
        with self._lock:
            self._receiving = False
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            if self._finished or self._receiving or not self._status_received:
                return
            self._finished = True
        self._forget()
        self._done(_ended(self.status, None))


def _ended(status: Any, message: bytes | None) -> CallResult:
    code = status.code()
    if code == 0:
        return CallResult(0, message)
    details = status.details()
    if isinstance(details, bytes):
        details = details.decode(errors="replace")
    return CallResult(code, None, details or "", pushback_s(status.trailing_metadata()))


def _no_callback(_: Any) -> None:
    pass
