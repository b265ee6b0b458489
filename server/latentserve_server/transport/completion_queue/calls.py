"""State machines of calls, driven by events of grpcio's completion queue.

A call has no thread or task. The polling thread (see `poller`) takes each event from the queue of
a `grpc.server` and calls its tag, which is a method of this module. The tag returns the call
after the call's last event, otherwise None; the server's stop waits for calls until then. A call
costs four events, and inline execution needs no thread switch.

All of this is private to grpcio: `server.find_incompatibility` tests it at every start.

* A batch of operations may be started from any thread; its event comes on the polling thread.
* An operation holds C state: a new one is needed each time, since reuse would free it twice.
* A tag must not raise: this would end the polling thread, and so the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc

from latentserve_server.errors import DeadlineExceeded, InvalidRequest
from latentserve_server.observability.logs.failed_calls import HEAD_BYTES
from latentserve_server.observability.metrics import cancellation_code
from latentserve_server.observability.tracing import CallTrace
from latentserve_server.services.call import Call, Reply, UnaryMethod
from latentserve_server.status import WireStatus, explain
from latentserve_server.transport.base import StreamMethod
from latentserve_server.transport.completion_queue import operations
from latentserve_server.transport.deadline import WallClock
from latentserve_server.transport.flow_control.codec_pool import (
    MIN_CODEC_BYTES,
    CodecJob,
    CodecPool,
    kind_of,
)
from latentserve_server.transport.flow_control.expiry import MARGIN_S
from latentserve_server.transport.flow_control.reply_quota import COUNTED_BYTES, ReplyHold
from latentserve_server.transport.interceptors import Interceptors

log = logging.getLogger(__name__)

_DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@dataclass(frozen=True)
class Method:
    """Common data of the calls of one method."""

    name: str
    codec: CodecPool
    interceptors: Interceptors | None = None
    unary: UnaryMethod | None = None
    stream: StreamMethod | None = None


class UnaryCall:
    """One call: receive the request, begin the work, send the reply.

    A lock protects its state: events come on the polling thread, the callback on an engine's
    thread, and large requests are parsed on a third thread. After the close event no operation may
    be started; the call ends with the last pending batch of operations.
    """

    __slots__ = (
        *("_admitted", "_call", "_closed", "_code"),
        *("_deadline", "_ended_early", "_failure", "_head"),
        *("_hold", "_lock", "_metadata", "_method"),
        *("_pending_batches", "_started_s", "_trace", "_work"),
        *("_writing_s",),
    )

    def __init__(self, event: Any, method: Method) -> None:
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._deadline = _monotonic(event.call_details.deadline)
        if self._deadline is None and (interceptors := method.interceptors) is not None:
            self._deadline = interceptors.latest_end_s()
        self._method = method
        self._lock = threading.Lock()
        self._pending_batches = 0
        self._closed = False
        self._ended_early = False
        self._started_s: float | None = None
        self._admitted = False
        self._code = ""  # code of the sent status
        self._failure: WireStatus | None = None
        self._head = b""
        self._trace: CallTrace | None = None
        self._work: Call | None = None
        self._hold: ReplyHold | None = None  # counts the bytes of a large reply
        self._writing_s = 0.0  # when gRPC core got the reply that is not written yet

    def start(self) -> None:
        """Request the close event and the request message from gRPC core.

        No lock is needed: no other thread has the call yet, and its events come on this thread.
        """
        start_batch = self._call.start_server_batch
        start_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._on_close)
        self._pending_batches = 1
        start_batch((cygrpc.ReceiveMessageOperation(0),), self._on_request)
        self._pending_batches = 2

    @property
    def has_events(self) -> bool:
        """Whether events of the call are pending."""
        return self._pending_batches > 0

    # --- events, on the polling thread --------------------------------------------------------

    def _on_close(self, event: Any) -> object:
        """Handle the close event: the status was sent, or the call was cancelled or expired."""
        with self._lock:
            self._closed = True
            work = self._work
        self._stop_waiting()
        if work is not None and event.batch_operations[0].cancelled():
            try:
                work.cancel()
            except Exception:
                log.exception("a call of %s could not be cancelled", self._method.name)
        return self._batch_ended()

    def _on_request(self, event: Any) -> object:
        """Handle the request message, which is None if the client cancelled or sent none."""
        request = event.batch_operations[0].message()
        method, interceptors = self._method, self._method.interceptors
        try:
            if interceptors is not None:
                self._started_s = time.perf_counter()
                interceptors.rpc.begin()
                if (tracer := interceptors.rpc.tracer) is not None:
                    self._trace = tracer.begin(self._metadata)
                interceptors.guard.check(method.name, self._metadata)
            if request is None:
                raise InvalidRequest(
                    f"no request message was sent, {method.name} expects exactly one"
                )
            self._head = request[:HEAD_BYTES]
            if interceptors is not None:
                if interceptors.replies.tight:
                    interceptors.replies.check(self._call.peer())
                interceptors.gate.enter()
                self._admitted = True
            if len(request) > MIN_CODEC_BYTES and (kind := kind_of(request)):
                job = self._codec_job(kind, partial(self._begin, request), len(request))
                method.codec.submit_request(job)
            else:
                self._begin(request)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._fail(error)
        return self._batch_ended()

    def _on_sent(self, event: Any) -> object:
        """Handle the end of the last batch: the status was written or dropped."""
        if not event.success:
            self._code = ""
        return self._batch_ended()

    def _batch_ended(self) -> object:
        with self._lock:
            self._pending_batches -= 1
            if self._pending_batches:
                return None
            self._work = None  # breaks a reference cycle, which only the collector would free
        self._release_hold()
        try:
            self._record_end()
        except Exception:
            log.exception("the end of a call of %s could not be recorded", self._method.name)
        return self

    def _record_end(self) -> None:
        interceptors = self._method.interceptors
        if interceptors is None:
            return
        if self._started_s is not None:
            code = self._code or (
                "DEADLINE_EXCEEDED" if self._ended_early else cancellation_code(self._remaining_s())
            )
            failure = self._failure if self._code else None
            seconds = time.perf_counter() - self._started_s
            interceptors.rpc.end(code, seconds, self._head, failure, self._trace, self._metadata)
        if self._admitted:
            interceptors.gate.leave()

    def _remaining_s(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()

    # --- from any thread ----------------------------------------------------------------------

    def _begin(self, request: bytes) -> None:
        method = self._method.unary
        assert method is not None  # noqa: S101 - Acceptor creates no other call
        try:
            work = method(request, self._deadline, self._done)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._fail(error)
            return
        self._set_work(work)

    def _set_work(self, work: Call) -> None:
        """Store the work, so that the close event can cancel it; cancel it if already closed."""
        with self._lock:
            if not self._closed:
                self._work = work
                return
        work.cancel()

    def _codec_job(self, kind: str, run: Callable[[], object], nbytes: int) -> CodecJob:
        """Return a job that the close event cancels."""
        job = CodecJob(kind, run, self._fail, nbytes, self._deadline)
        self._set_work(job)
        return job

    def _done(self, reply: Reply) -> None:
        if self._ended_early:
            return
        if self._trace is not None:
            self._trace.record_work(reply.work)
        if reply.slow:
            self._hold_bytes(reply.held_bytes)
            build = partial(self._build_and_send, reply)
            job = self._codec_job(self._method.name, build, reply.held_bytes)
            self._method.codec.submit_reply(job)
        else:
            self._build_and_send(reply)

    def _build_and_send(self, reply: Reply) -> None:
        if self._closed or self._ended_early:
            return
        try:
            body = reply.build()
            if self._hold is not None or len(body) >= COUNTED_BYTES:
                self._hold_bytes(len(body))
            self._send_reply(body)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._fail(error)

    def _hold_bytes(self, nbytes: int) -> None:
        """Count the bytes of a reply, until `_release_hold`."""
        if (interceptors := self._method.interceptors) is None:
            return
        if self._hold is not None:
            self._hold.resize(nbytes)
            return
        hold = interceptors.replies.acquire(self._call.peer, nbytes)
        with self._lock:
            if not self._closed:
                self._hold = hold
                return
        hold.release()

    def _stop_waiting(self) -> None:
        """Stop waiting to build a reply; a unary call does not wait."""

    def end_if_overdue(self, now_s: float, reader_idle_s: float) -> str:
        """End the call if it is overdue; return the reason, one of `expiry.ENDED`, or "".

        gRPC core ends a call at its deadline; this ends one without a deadline.
        """
        writing_s = self._writing_s
        if writing_s and now_s - writing_s > reader_idle_s:
            reason, message = "reader_idle", "the reply was not read in time (--reader-idle-s)"
        elif self._deadline is not None and now_s > self._deadline + MARGIN_S:
            reason, message = (
                "max_call",
                "the call has no deadline and took too long (--max-call-s)",
            )
        else:
            return ""
        with self._lock:
            if self._closed or self._ended_early:
                return ""
            self._ended_early, work = True, self._work
            if writing_s:  # the status would have to wait until the reply is read
                self._call.cancel(_DEADLINE_EXCEEDED, message)
                return reason
        if work is not None:
            work.cancel()
        self._fail(DeadlineExceeded(message))
        return reason

    def _release_hold(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _send_reply(self, body: bytes) -> None:
        self._finish(
            (
                *operations.initial_metadata(),
                *operations.message(body),
                *operations.status(operations.OK),
            ),
            "OK",
        )

    def _fail(self, error: Exception) -> None:
        """End the call with the status of an error, unless the call is closed."""
        if not self._closed:
            status = self._failure = explain(error)
            code = grpc.StatusCode[status.code_name].value[0]
            closing = operations.status(code, status.message.encode(), status.trailers)
            self._finish((*self._unsent_metadata(), *closing), status.code_name)

    def _finish(self, batch: tuple[Any, ...], code: str) -> None:
        """Send the last batch of a call, or hold it while replies are held."""
        interceptors = self._method.interceptors
        if interceptors is None or not interceptors.gate.is_holding:
            self._send(batch, self._on_sent, code)
        else:
            interceptors.gate.send_or_hold(lambda: self._send(batch, self._on_sent, code))

    def _unsent_metadata(self) -> tuple[Any, ...]:
        """Return the initial metadata if it has not been sent."""
        return operations.initial_metadata()

    def _send(self, batch: tuple[Any, ...], tag: Callable[[Any], object], code: str = "") -> None:
        """Start a batch with the event handler `tag`; `code` is its status code, if any."""
        with self._lock:
            if self._closed:
                return
            self._pending_batches += 1
            self._code = code
            self._writing_s = time.monotonic()
            try:
                self._call.start_server_batch(batch, tag)
            except Exception:  # no event will come for this batch
                self._pending_batches -= 1
                log.exception("a call of %s could not be continued", self._method.name)
                self._call.cancel(grpc.StatusCode.INTERNAL.value[0], "internal error")


_monotonic = WallClock().deadline
