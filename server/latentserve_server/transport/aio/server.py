"""Transport on grpc.aio, with cancellation, deadlines and error statuses.

The service parses the request's bytes, so that malformed bytes get INVALID_ARGUMENT like other
invalid input. gRPC's own deserialisation would fail with UNKNOWN, outside every interceptor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from latentserve_server.batching.batcher import Batcher
from latentserve_server.errors import CallError
from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.tracing import Tracing
from latentserve_server.services.call import Call, Done, Reply, UnaryMethod
from latentserve_server.transport.aio.codec_jobs import run_codec_job
from latentserve_server.transport.aio.drain import DrainGate
from latentserve_server.transport.aio.in_flight import CallInFlight, CallsInFlight
from latentserve_server.transport.aio.interceptor import TRACE, CallInterceptor
from latentserve_server.transport.aio.log_filter import drop_cancellation
from latentserve_server.transport.aio.termination import Termination
from latentserve_server.transport.base import (
    CUT_OFF_MARGIN_S,
    HOLD_AFTER_S,
    HOLD_BEFORE_S,
    Endpoint,
    Service,
    StreamMethod,
    bind,
)
from latentserve_server.transport.deadline import WallClock
from latentserve_server.transport.flow_control.codec_pool import CodecPool, kind_of
from latentserve_server.transport.flow_control.expiry import end_overdue_calls
from latentserve_server.transport.flow_control.reply_quota import ReplyLimits, ReplyQuota

_LAST_WRITES_S = 0.5
_CLOCK = WallClock()

T = TypeVar("T")


class AioHandlers:
    """Adapts the services' methods to grpc.aio handlers."""

    def __init__(self, gate: DrainGate, codec: CodecPool, calls: CallsInFlight) -> None:
        self._gate = gate
        self._calls = calls
        self._codec = codec

    def generic_handler(
        self,
        service: str,
        unary: Mapping[str, UnaryMethod],
        streams: Mapping[str, StreamMethod] | None = None,
    ) -> grpc.GenericRpcHandler:
        """Return the handler of one service."""
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(method))
            for name, method in unary.items()
        }
        for name, stream in (streams or {}).items():
            handlers[name] = grpc.unary_stream_rpc_method_handler(self._stream(stream))
        return grpc.method_handlers_generic_handler(service, handlers)

    def _unary(self, method: UnaryMethod) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def handle(request: bytes, context: Any) -> bytes:
            call = self._calls.enter(context, _deadline(context))
            with self._gate:
                return await self._call(
                    call,
                    lambda done: method(request, call.deadline, done),
                    kind=kind_of(request),
                    nbytes=len(request),
                )

        return handle

    def _stream(self, method: StreamMethod) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
        """Return a handler that requests the next chunk after the previous one is written."""

        async def handle(request: bytes, context: Any) -> AsyncIterator[bytes]:
            call = self._calls.enter(context, _deadline(context))
            with self._gate:
                stream = method(request)
                while not stream.exhausted:
                    await call.wait_for_room()
                    yield await self._call(
                        call, lambda done: stream.next_chunk(call.deadline, done)
                    )
                    call.written()

        return handle

    async def _call(
        self,
        known: CallInFlight,
        begin: Callable[[Done], Call],
        *,
        kind: str = "",
        nbytes: int = 0,
    ) -> bytes:
        """Begin a call and wait for its reply; cancel it when the task is cancelled.

        A request of `nbytes` bytes is parsed by the codec threads if it has a `kind`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        known.waiting = future

        def done(reply: Reply) -> None:  # called on the engine's thread
            loop.call_soon_threadsafe(_resolve, future, reply)

        if kind:
            call = await run_codec_job(
                self._codec.submit_request,
                *(kind, partial(begin, done), nbytes, known),
                late=_cancel_begun,
            )
        else:
            call = begin(done)
        try:
            reply = await future
        except (asyncio.CancelledError, CallError):  # the call was ended
            call.cancel()
            raise
        if (trace := TRACE.get()) is not None:
            trace.record_work(reply.work)
        if reply.slow:
            known.hold(reply.held_bytes)
            body = await run_codec_job(
                self._codec.submit_reply, "reply", reply.build, reply.held_bytes, known
            )
        else:
            body = reply.build()
        known.hold(len(body))
        known.writing()
        return body


class AioTransport:
    """Implements `transport.base.Transport`.

    Args:
        executor: runs the work for large requests and slow replies.
        metrics: counts the calls of the services.
        tracing: traces the calls; None for no traces.
        limits: limits on unwritten replies and on the duration of calls.
    """

    turns = None  # no thread of its own: it runs on the application's event loop

    def __init__(
        self,
        executor: Executor,
        metrics: Metrics,
        tracing: Tracing | None = None,
        limits: ReplyLimits | None = None,
    ) -> None:
        self._tracing = tracing
        self._limits = limits or ReplyLimits()
        replies = ReplyQuota(self._limits, metrics.unread_refused)
        metrics.unwritten_bytes = lambda: replies.nbytes
        codec = CodecPool(executor, self._limits.decoding_bytes, metrics.decoding_refused)
        metrics.decoding_bytes = lambda: codec.nbytes
        self._calls = CallsInFlight(replies, self._limits.max_call_s)
        self._expiry: asyncio.Task[None] | None = None
        self.health = health.aio.HealthServicer()
        self._metrics = metrics
        self._gate = DrainGate()
        self._handlers = AioHandlers(self._gate, codec, self._calls)
        self._server: grpc.aio.Server | None = None
        self._stopping: asyncio.Future[None] | None = None  # the loop keeps no reference
        self._termination = Termination()

    @property
    def in_flight(self) -> int:
        """Number of calls that were admitted and have not ended."""
        return self._gate.in_flight

    def take(self, batcher: Batcher) -> bool:
        """Decline every batcher: an event loop must not run a batch."""
        return False

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Serve and return the port. Raises SettingsError if the port cannot be bound."""
        logging.getLogger("grpc._cython.cygrpc").addFilter(drop_cancellation)
        names = [service.name for service in services]
        for service in services:
            for method in (*service.unary, *service.streams):  # creates all metric series
                self._metrics.rpc(f"/{service.name}/{method}", streaming=method in service.streams)
        interceptor = CallInterceptor(
            frozenset(names), self._metrics, endpoint.guard, self._gate, self._tracing
        )
        server = grpc.aio.server(interceptors=[interceptor], options=list(endpoint.options))
        server.add_generic_rpc_handlers(
            tuple(
                self._handlers.generic_handler(service.name, service.unary, service.streams)
                for service in services
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        port = bind(server, endpoint)
        await self._termination.start(server)
        self._server = server
        self._expiry = asyncio.ensure_future(
            end_overdue_calls(
                self._calls.copy,
                reader_idle_s=self._limits.reader_idle_s,
                max_call_s=self._limits.max_call_s,
                on_ended=self._metrics.overdue_ended,
            )
        )
        return port

    async def hand_over(self, *, timeout_s: float) -> bool:
        """Close the port and wait for the calls in flight; see `Transport`."""
        if self._server is None:
            return True
        self._termination.expect()
        self._gate.hold()
        try:
            await asyncio.sleep(HOLD_BEFORE_S)
            stopping = asyncio.ensure_future(self._server.stop(timeout_s + CUT_OFF_MARGIN_S))
            self._stopping = stopping
            await asyncio.sleep(HOLD_AFTER_S)
        finally:
            self._gate.release()
        drained = await self.drain(timeout_s=timeout_s)
        # The gate counts a call as ended before its reply is written. The timeout is needed,
        # because health watches do not end.
        await asyncio.wait({stopping}, timeout=_LAST_WRITES_S)
        return drained

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for calls in flight; return False after the timeout."""
        return await self._gate.drain(timeout_s=timeout_s)

    async def stop(self, grace_s: float) -> None:
        """Cut off the calls that are in flight after `grace_s`, and close the port."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._server is not None:
            self._termination.expect()
            await self._server.stop(grace_s)


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():  # the call may be cancelled
        future.set_result(value)


def _cancel_begun(call: Call) -> None:
    """Cancel a call that began after its task was cancelled."""
    call.cancel()


def _deadline(context: Any) -> float | None:
    """Return the call's deadline on the monotonic clock."""
    return _CLOCK.deadline_in(context.time_remaining())
