"""Transport on grpc.aio, with cancellation, deadlines and error statuses.

The service parses the request's bytes, so that malformed bytes get INVALID_ARGUMENT like other
invalid input. gRPC's own deserialisation would fail with UNKNOWN, outside every interceptor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from latentserve_server.batching.batcher import Batcher
from latentserve_server.observability.access_log import HEAD_BYTES
from latentserve_server.observability.metrics import Metrics, cancellation_code
from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.observability.tracing import CallTrace, Tracing
from latentserve_server.services.call import Call, Done, Reply, UnaryMethod
from latentserve_server.status import WireStatus, explain
from latentserve_server.transport.aio.drain import DrainGate
from latentserve_server.transport.aio.log_filter import drop_cancellation
from latentserve_server.transport.aio.termination import Termination
from latentserve_server.transport.base import (
    CUT_OFF_MARGIN_S,
    HOLD_AFTER_S,
    HOLD_BEFORE_S,
    LARGE_REQUEST_BYTES,
    Endpoint,
    Service,
    StreamMethod,
    bind,
)
from latentserve_server.transport.deadline import WallClock
from latentserve_server.transport.security import TokenGuard

_LAST_WRITES_S = 0.5
_CLOCK = WallClock()

# Trace of the current task's call; grpc.aio serves each call in a separate task.
_TRACE: ContextVar[CallTrace | None] = ContextVar("trace", default=None)

T = TypeVar("T")


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped
    """Converts every error of a call to a status (see `status`), and counts calls."""

    def __init__(
        self,
        services: frozenset[str],
        metrics: Metrics,
        guard: TokenGuard,
        gate: DrainGate,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._services = services
        self._guard = guard
        self._gate = gate
        self._metrics = metrics
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handlers of the services; return those of health and reflection unchanged."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or method.strip("/").partition("/")[0] not in self._services:
            return handler
        rpc = RpcRecorder(
            self._metrics,
            method,
            streaming=bool(handler.response_streaming),
            tracing=self._tracing,
        )
        if handler.response_streaming:
            wrapped = grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, method, rpc, self._guard, self._gate)
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                _guard_unary(handler.unary_unary, method, rpc, self._guard, self._gate)
            )
        # One entry for each method of the contract, so that calls do not pay for the wrapping.
        self._handlers[method] = wrapped
        return wrapped


class AioHandlers:
    """Adapts the services' methods to grpc.aio handlers."""

    def __init__(self, gate: DrainGate, executor: Executor) -> None:
        self._gate = gate
        self._executor = executor

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
            deadline = _deadline(context)
            with self._gate:
                return await self._call(
                    lambda done: method(request, deadline, done),
                    offload=len(request) > LARGE_REQUEST_BYTES,
                )

        return handle

    def _stream(self, method: StreamMethod) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
        """Return a handler that requests the next chunk after the previous one is written."""

        async def handle(request: bytes, context: Any) -> AsyncIterator[bytes]:
            with self._gate:
                stream = method(request)
                deadline = _deadline(context)
                while not stream.exhausted:
                    yield await self._call(lambda done: stream.next_chunk(deadline, done))

        return handle

    async def _call(self, begin: Callable[[Done], Call], *, offload: bool = False) -> bytes:
        """Begin a call and wait for its reply; cancel it when the task is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()

        def done(reply: Reply) -> None:  # called on the engine's thread
            loop.call_soon_threadsafe(_resolve, future, reply)

        if offload:
            beginning = loop.run_in_executor(self._executor, begin, done)
            try:
                call = await asyncio.shield(beginning)
            except asyncio.CancelledError:
                beginning.add_done_callback(_cancel_begun)
                raise
        else:
            call = begin(done)
        try:
            reply = await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        if (trace := _TRACE.get()) is not None:
            trace.record_work(reply.work)
        if reply.slow:
            return await loop.run_in_executor(self._executor, reply.build)
        return reply.build()


class AioTransport:
    """Implements `transport.base.Transport`.

    Args:
        executor: runs the work for large requests and slow replies.
        metrics: counts the calls of the services.
        tracing: traces the calls; None for no traces.
    """

    turns = None  # no thread of its own: it runs on the application's event loop

    def __init__(
        self, executor: Executor, metrics: Metrics, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing
        self.health = health.aio.HealthServicer()
        self._metrics = metrics
        self._gate = DrainGate()
        self._handlers = AioHandlers(self._gate, executor)
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
        if self._server is not None:
            self._termination.expect()
            await self._server.stop(grace_s)


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():  # the call may be cancelled
        future.set_result(value)


def _cancel_begun(beginning: asyncio.Future[Call]) -> None:
    """Cancel a call that began after its task was cancelled."""
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().cancel()


def _deadline(context: Any) -> float | None:
    """Return the call's deadline on the monotonic clock."""
    return _CLOCK.deadline_in(context.time_remaining())


def _guard_unary(
    behavior: Any, method: str, rpc: RpcRecorder, guard: TokenGuard, gate: DrainGate
) -> Any:
    async def guarded(request: bytes, context: Any) -> Any:
        started = time.perf_counter()
        rpc.begin()
        metadata, trace = context.invocation_metadata(), None
        if rpc.tracer is not None:
            trace = rpc.tracer.begin(metadata)
            _TRACE.set(trace)
        code, status = "CANCELLED", None
        try:
            guard.check(method, metadata)
            response = await behavior(request, context)
            await gate.wait_for_release()
            code = "OK"
            return response
        except asyncio.CancelledError:
            code = cancellation_code(context.time_remaining())
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            status = explain(error)
            code = status.code_name
            await gate.wait_for_release()
            await _abort(context, status)
        finally:
            seconds = time.perf_counter() - started
            rpc.end(code, seconds, request[:HEAD_BYTES], status, trace, metadata)

    return guarded


def _guard_stream(
    behavior: Any, method: str, rpc: RpcRecorder, guard: TokenGuard, gate: DrainGate
) -> Any:
    async def guarded(request: bytes, context: Any) -> AsyncIterator[Any]:
        started = time.perf_counter()
        rpc.begin()
        metadata, trace = context.invocation_metadata(), None
        if rpc.tracer is not None:
            trace = rpc.tracer.begin(metadata)
            _TRACE.set(trace)
        code, status = "CANCELLED", None
        try:
            guard.check(method, metadata)
            async for response in behavior(request, context):
                rpc.sent()
                yield response
            await gate.wait_for_release()
            code = "OK"
        except asyncio.CancelledError:
            code = cancellation_code(context.time_remaining())
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            status = explain(error)
            code = status.code_name
            await gate.wait_for_release()
            await _abort(context, status)
        finally:
            seconds = time.perf_counter() - started
            rpc.end(code, seconds, request[:HEAD_BYTES], status, trace, metadata)

    return guarded


async def _abort(context: Any, status: WireStatus) -> None:
    """End a call with a status. This raises grpc's AbortError, which must not be caught."""
    await context.abort(getattr(grpc.StatusCode, status.code_name), status.message, status.trailers)
