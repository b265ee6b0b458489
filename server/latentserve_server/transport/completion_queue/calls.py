"""Calls driven by the events of grpcio's completion queue, without a thread or task for each.

One thread polls the queue of a `grpc.server`; see `polling`. The tag of each event is one of
the methods here, which the thread calls with the event. It returns what has had its last
event, and so leaves the set of what the server waits for when it stops, or else None. A call
costs four events, and no thread switch where the work is done inline.

All of it is private to grpcio: `transport_cq.why_unusable` tries it out at every start.

* A batch of operations may be started from any thread; events come on the polling thread.
* An operation holds C state: it is made anew each time, reuse would free it twice.
* A tag must not raise: that would end the polling thread, and with it the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import grpc
from grpc._cython import cygrpc

from latentserve_server.errors import InvalidRequest
from latentserve_server.observability.access_log import HEAD_BYTES
from latentserve_server.observability.metrics import cancellation_code
from latentserve_server.observability.tracing import CallTrace
from latentserve_server.services.call import Call, ChunkStream, Reply, UnaryMethod
from latentserve_server.status import WireStatus, explain
from latentserve_server.transport.base import LARGE_REQUEST_BYTES, StreamMethod
from latentserve_server.transport.deadline import WallClock
from latentserve_server.transport.interceptors import Interceptors

log = logging.getLogger(__name__)


_OK = grpc.StatusCode.OK.value[0]


@dataclass(frozen=True)
class Method:
    """What the calls of one method share."""

    name: str
    executor: Executor
    interceptors: Interceptors | None = None
    unary: UnaryMethod | None = None
    stream: StreamMethod | None = None


class UnaryCall:
    """One call: receive the request, begin it, send what its callback is given.

    It changes under a lock: the callback comes from an engine's thread, the events on the
    polling thread, and large requests are parsed on a third. After the close event nothing
    may be started; with the last of the batches that are due, the call has ended.
    """

    __slots__ = (
        "_admitted",
        "_began",
        "_call",
        "_code",
        "_deadline",
        "_due",
        "_failure",
        "_head",
        "_lock",
        "_metadata",
        "_method",
        "_over",
        "_trace",
        "_work",
    )

    def __init__(self, event: Any, method: Method) -> None:
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._deadline = _monotonic(event.call_details.deadline)
        self._method = method
        self._lock = threading.Lock()
        self._due = 0
        self._over = False
        self._began: float | None = None
        self._admitted = False
        self._code = ""  # of the status that was sent
        self._failure: WireStatus | None = None
        self._head = b""
        self._trace: CallTrace | None = None
        self._work: Call | None = None

    def start(self) -> None:
        """Ask for the request, and for the news that the call is over, whenever that is.

        Nobody else knows of the call yet, and its events come on this thread: no lock is needed.
        """
        start_batch = self._call.start_server_batch
        start_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
        self._due = 1
        start_batch((cygrpc.ReceiveMessageOperation(0),), self._received)
        self._due = 2

    @property
    def has_events(self) -> bool:
        """Whether an event of the call is still to come."""
        return self._due > 0

    # --- events, on the polling thread --------------------------------------------------------

    def _closed(self, event: Any) -> object:
        """The status was sent, or else the caller left or the deadline passed."""
        with self._lock:
            self._over = True
            work = self._work
        if work is not None and event.batch_operations[0].cancelled():
            try:
                work.cancel()
            except Exception:
                log.exception("a call of %s could not be cancelled", self._method.name)
        return self._batch_ended()

    def _received(self, event: Any) -> object:
        """The request is there; None if the caller left or sent none."""
        request = event.batch_operations[0].message()
        method, interceptors = self._method, self._method.interceptors
        try:
            if interceptors is not None:
                self._began = time.perf_counter()
                interceptors.rpc.begin()
                if (tracer := interceptors.rpc.tracer) is not None:
                    self._trace = tracer.begin(self._metadata)
                interceptors.guard.check(method.name, self._metadata)
            if request is None:
                raise InvalidRequest(f"{method.name} takes exactly one request message, none came")
            self._head = request[:HEAD_BYTES]
            if interceptors is not None:
                interceptors.gate.enter()
                self._admitted = True
            if len(request) > LARGE_REQUEST_BYTES:
                method.executor.submit(self._begin, request)
            else:
                self._begin(request)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a status
            self._fail(error)
        return self._batch_ended()

    def _sent(self, event: Any) -> object:
        """The status, and what came with it, was written or dropped."""
        if not event.success:
            self._code = ""
        return self._batch_ended()

    def _batch_ended(self) -> object:
        with self._lock:
            self._due -= 1
            if self._due:
                return None
            self._work = None  # it leads back here: without this, only the collector frees both
        try:
            self._tell_end()
        except Exception:
            log.exception("the end of a call of %s was not told", self._method.name)
        return self

    def _tell_end(self) -> None:
        interceptors = self._method.interceptors
        if interceptors is None:
            return
        if self._began is not None:
            code = self._code or cancellation_code(self._remaining_s())
            failure = self._failure if self._code else None
            seconds = time.perf_counter() - self._began
            interceptors.rpc.end(code, seconds, self._head, failure, self._trace, self._metadata)
        if self._admitted:
            interceptors.gate.leave()

    def _remaining_s(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()

    # --- from any thread ----------------------------------------------------------------------

    def _begin(self, request: bytes) -> None:
        method = self._method.unary
        assert method is not None  # noqa: S101 - Arrivals makes no other
        try:
            work = method(request, self._deadline, self._done)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a status
            self._fail(error)
            return
        self._work_on(work)

    def _work_on(self, work: Call) -> None:
        """Remember what gives the next reply; whoever has left meanwhile cancels it."""
        with self._lock:
            if not self._over:
                self._work = work
                return
        work.cancel()

    def _done(self, reply: Reply) -> None:
        if self._trace is not None:
            self._trace.record_work(reply.work)
        if reply.slow:
            self._method.executor.submit(self._answer, reply)
        else:
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        if self._over:
            return
        try:
            self._respond(reply.build())
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a status
            self._fail(error)

    def _respond(self, body: bytes) -> None:
        self._finish((*_opening(), *_message(body), *_status(_OK)), "OK")

    def _fail(self, error: Exception) -> None:
        """End the call with the status of an error, unless nobody is there to hear it."""
        if not self._over:
            status = self._failure = explain(error)
            code = grpc.StatusCode[status.code_name].value[0]
            closing = _status(code, status.message.encode(), status.trailers)
            self._finish((*self._unopened(), *closing), status.code_name)

    def _finish(self, operations: tuple[Any, ...], code: str) -> None:
        """Send the last batch of a call, unless replies are being held."""
        interceptors = self._method.interceptors
        if interceptors is None or not interceptors.gate.holds:
            self._send(operations, self._sent, code)
        else:
            interceptors.gate.pass_out(lambda: self._send(operations, self._sent, code))

    def _unopened(self) -> tuple[Any, ...]:
        """Return the initial metadata if it is still to be sent."""
        return _opening()

    def _send(
        self, operations: tuple[Any, ...], tag: Callable[[Any], object], code: str = ""
    ) -> None:
        """Start a batch; its event comes to `tag`. `code` is that of the status in it."""
        with self._lock:
            if self._over:
                return
            self._due += 1
            self._code = code
            try:
                self._call.start_server_batch(operations, tag)
            except Exception:  # then there will be no event for it
                self._due -= 1
                log.exception("a call of %s could not go on", self._method.name)
                self._call.cancel(grpc.StatusCode.INTERNAL.value[0], "internal error")


class StreamCall(UnaryCall):
    """A call with many replies: the next is asked for when the last was written."""

    __slots__ = ("_opened", "_stream")

    def __init__(self, event: Any, method: Method) -> None:
        super().__init__(event, method)
        self._stream: ChunkStream | None = None
        self._opened = False

    def _begin(self, request: bytes) -> None:
        method = self._method.stream
        assert method is not None  # noqa: S101 - Arrivals makes no other
        try:
            self._stream = method(request)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a status
            self._fail(error)
            return
        self._next()

    def _next(self) -> None:
        stream = self._stream
        if stream is None or self._over:
            return
        try:
            work = stream.next_chunk(self._deadline, self._done)
        except Exception as error:  # noqa: BLE001 - the border: everything becomes a status
            self._fail(error)
            return
        self._work_on(work)

    def _respond(self, body: bytes) -> None:
        operations = (*self._unopened(), *_message(body))
        self._opened = True
        if (interceptors := self._method.interceptors) is not None:
            interceptors.rpc.sent()
        if self._stream is None or self._stream.exhausted:
            self._finish((*operations, *_status(_OK)), "OK")
        else:
            self._send(operations, self._written)

    def _written(self, event: Any) -> object:
        """A chunk has left: there is room for the next one."""
        self._next()
        return self._batch_ended()

    def _unopened(self) -> tuple[Any, ...]:
        return () if self._opened else _opening()


def _opening() -> tuple[Any, ...]:
    return (cygrpc.SendInitialMetadataOperation((), 0),)


def _message(body: bytes) -> tuple[Any, ...]:
    return (cygrpc.SendMessageOperation(body, 0),)


def _status(
    code: int, message: bytes = b"", trailers: tuple[tuple[str, str | bytes], ...] = ()
) -> tuple[Any, ...]:
    return (cygrpc.SendStatusFromServerOperation(trailers, code, message, 0),)


_monotonic = WallClock().deadline
