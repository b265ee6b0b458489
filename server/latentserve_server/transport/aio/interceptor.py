"""Interceptor of grpc.aio that converts errors to statuses, checks tokens and counts calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from latentserve_server.observability.logs.failed_calls import HEAD_BYTES
from latentserve_server.observability.metrics import Metrics, cancellation_code
from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.observability.tracing import CallTrace, Tracing
from latentserve_server.status import WireStatus, explain
from latentserve_server.transport.aio.drain import DrainGate
from latentserve_server.transport.security import TokenGuard

# Trace of the current task's call; grpc.aio serves each call in a separate task.
TRACE: ContextVar[CallTrace | None] = ContextVar("trace", default=None)


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


def _guard_unary(
    behavior: Any, method: str, rpc: RpcRecorder, guard: TokenGuard, gate: DrainGate
) -> Any:
    async def guarded(request: bytes, context: Any) -> Any:
        started = time.perf_counter()
        rpc.begin()
        metadata, trace = context.invocation_metadata(), None
        if rpc.tracer is not None:
            trace = rpc.tracer.begin(metadata)
            TRACE.set(trace)
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
            TRACE.set(trace)
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
