"""Transport on grpcio's completion queue, with less CPU per call than grpc.aio.

`grpc.server` manages the port, the shutdown and reflection, through its public API. The methods of
the services and of health are registered below that API, where an event costs one Python call.
`poller` has the polling loop, `acceptor` and `calls` have the handlers of its events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Event
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc_reflection.v1alpha import reflection

from latentserve_server.batching.batcher import Batcher
from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.observability.tracing import Tracing
from latentserve_server.services import health
from latentserve_server.services.call import Call, Done, Reply
from latentserve_server.services.health import HealthService
from latentserve_server.transport.base import (
    CUT_OFF_MARGIN_S,
    HOLD_AFTER_S,
    HOLD_BEFORE_S,
    Endpoint,
    Service,
    bind,
)
from latentserve_server.transport.completion_queue import poller
from latentserve_server.transport.completion_queue.acceptor import Acceptor
from latentserve_server.transport.completion_queue.calls import Method, UnaryCall
from latentserve_server.transport.completion_queue.inline_execution import InlineExecution
from latentserve_server.transport.completion_queue.poller import Poller
from latentserve_server.transport.flow_control.codec_pool import CodecPool
from latentserve_server.transport.flow_control.drain import DrainGate
from latentserve_server.transport.flow_control.expiry import end_overdue_calls
from latentserve_server.transport.flow_control.reply_quota import ReplyLimits, ReplyQuota
from latentserve_server.transport.interceptors import Interceptors

log = logging.getLogger(__name__)

# Reflection holds a thread per stream. Only reflection calls wait if all threads are in use.
_REFLECTION_THREADS = 4
_STOP_TIMEOUT_S = 5.0
_TEST_TIMEOUT_S = 3.0

_OPERATIONS = (
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
)


class CompletionQueueServer:
    """A grpc.server with the services' methods on its polling thread.

    Args:
        executor: runs the work for large requests and slow replies.
        endpoint: address, credentials and options.
        gate, metrics: count the calls of the services that drain.
        limits: limits on the unwritten replies of these calls.
        logged: whether these calls are logged.
        inline: inline execution of batches on the polling thread.
        tracing: traces the calls; None for no traces.
    """

    def __init__(
        self,
        executor: Executor,
        endpoint: Endpoint,
        gate: DrainGate,
        metrics: Metrics,
        *,
        logged: bool = True,
        inline: InlineExecution | None = None,
        tracing: Tracing | None = None,
        limits: ReplyLimits | None = None,
    ) -> None:
        self._limits = limits or ReplyLimits()
        self._replies = ReplyQuota(self._limits, metrics.unread_refused)
        metrics.unwritten_bytes = lambda: self._replies.nbytes
        self._logged = logged
        self._inline = InlineExecution(lambda: gate.in_flight) if inline is None else inline
        self._tracing = tracing
        self._codec = CodecPool(executor, self._limits.decoding_bytes, metrics.decoding_refused)
        metrics.decoding_bytes = lambda: self._codec.nbytes
        self._endpoint = endpoint
        self._gate = gate
        self._metrics = metrics
        # Never shut down: a later call would end the polling thread.
        pool = ThreadPoolExecutor(_REFLECTION_THREADS, thread_name_prefix="reflection")
        self._server: Any = grpc.server(pool, options=list(endpoint.options))
        self._acceptors: list[Acceptor] = []
        self._poller = Poller(self._server, self._inline)

    @property
    def turns(self) -> int | None:
        """Number that changes while the polling thread is alive; see `Poller.turns`."""
        return self._poller.turns

    def add(self, service: Service) -> None:
        """Register the methods of a service. Must be called before `start`."""
        for short in (*service.unary, *service.streams):
            name, stream = f"/{service.name}/{short}", service.streams.get(short)
            interceptors = None
            if service.drains:
                rpc = RpcRecorder(
                    self._metrics,
                    name,
                    streaming=stream is not None,
                    logged=self._logged,
                    tracing=self._tracing,
                )
                interceptors = Interceptors(
                    self._gate, self._endpoint.guard, rpc, self._replies, self._limits.max_call_s
                )
            method = Method(name, self._codec, interceptors, service.unary.get(short), stream)
            self._server._state.server.register_method(method.name)
            self._acceptors.append(Acceptor(method, self._server))

    def enable_reflection(self, names: Sequence[str]) -> None:
        """Serve reflection of the services `names`, on grpcio's threads."""
        reflection.enable_server_reflection(names, self._server)

    def start(self) -> int:
        """Serve and return the port. Raises SettingsError if the port cannot be bound."""
        port = bind(self._server, self._endpoint)
        self._poller.start()
        for acceptor in self._acceptors:
            # The polling thread runs until this set is empty; the last event removes the acceptor.
            self._server._state.rpc_states.add(acceptor)
            acceptor.request_next()
        return port

    def calls(self) -> list[UnaryCall]:
        """Return the calls in flight, without those of reflection."""
        return [
            state for state in self._server._state.rpc_states.copy() if isinstance(state, UnaryCall)
        ]

    def stop(self, grace_s: float) -> Event:
        """Accept no more calls, cut off calls after `grace_s`; return an event set at the end."""
        stopped: Event = self._server.stop(grace_s)
        return stopped

    def stop_and_wait(self, grace_s: float, timeout_s: float) -> bool:
        """Stop, and wait for the threads; return False if the server did not stop in time."""
        stopped = self.stop(grace_s).wait(timeout_s)
        if stopped:
            self._poller.join(timeout_s)
        return stopped


class CompletionQueueTransport:
    """Implements `transport.base.Transport`. Check with `find_incompatibility` before use.

    Args:
        executor: runs the work for large requests and slow replies.
        metrics: counts the calls of the services.
        tracing: traces the calls; None for no traces.
        limits: limits on unwritten replies and on the duration of calls.
    """

    def __init__(
        self,
        executor: Executor,
        metrics: Metrics,
        tracing: Tracing | None = None,
        limits: ReplyLimits | None = None,
    ) -> None:
        self._tracing = tracing
        self._limits = limits or ReplyLimits()
        self._expiry: asyncio.Task[None] | None = None
        self.health = HealthService()
        self._executor = executor
        self._metrics = metrics
        self._gate = DrainGate()
        self._inline = InlineExecution(lambda: self._gate.in_flight)
        self._server: CompletionQueueServer | None = None

    def take(self, batcher: Batcher) -> bool:
        """Accept a short batch for inline execution (see `inline_hook` of `Batcher`)."""
        return self._inline.take(batcher)

    @property
    def in_flight(self) -> int:
        """Number of calls that were admitted and whose last byte is not written."""
        return self._gate.in_flight

    @property
    def turns(self) -> int | None:
        """Sign of life of the polling thread; see `Transport`."""
        return None if self._server is None else self._server.turns

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Serve and return the port. Raises SettingsError if the port cannot be bound."""
        server = CompletionQueueServer(
            *(self._executor, endpoint, self._gate, self._metrics),
            inline=self._inline,
            tracing=self._tracing,
            limits=self._limits,
        )
        checks, watches = {"Check": self.health.check}, {"Watch": self.health.watch}
        health_service = Service(health.SERVICE_NAME, checks, watches, drains=False)
        for service in (*services, health_service):
            server.add(service)
        names = [service.name for service in (*services, health_service)]
        server.enable_reflection([*names, reflection.SERVICE_NAME])
        port = server.start()
        self._server = server
        self._expiry = asyncio.ensure_future(
            end_overdue_calls(
                server.calls,
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
        self._gate.hold()
        try:
            await asyncio.sleep(HOLD_BEFORE_S)
            self._server.stop(timeout_s + CUT_OFF_MARGIN_S)
            await asyncio.sleep(HOLD_AFTER_S)
        finally:
            self._gate.release()
        return await self.drain(timeout_s=timeout_s)

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for calls in flight; return False after the timeout."""
        loop = asyncio.get_running_loop()
        idle = asyncio.Event()

        def on_idle() -> None:  # called on any thread
            loop.call_soon_threadsafe(idle.set)

        self._gate.close(on_idle)
        try:
            await asyncio.wait_for(idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, grace_s: float) -> None:
        """Cut off the calls that are in flight after `grace_s`, and close the port."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._server is not None:
            server, timeout_s = self._server, grace_s + _STOP_TIMEOUT_S
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(None, server.stop_and_wait, grace_s, timeout_s):
                log.error("grpc.server did not stop within %g s", timeout_s)


def find_incompatibility() -> str | None:
    """Return the reason why the installed grpcio cannot run this transport, or None.

    The transport uses private parts of grpcio, which may change with any release. So it is
    tested: a server on a separate port serves one call, and stops.
    """
    missing = [name for name in _OPERATIONS if not hasattr(cygrpc, name)] + poller.missing()
    if missing:
        return f"grpcio {grpc.__version__} has no {', '.join(missing)}"
    try:
        return _test_server()
    except grpc.RpcError as error:
        return f"grpcio {grpc.__version__}: the test call failed: {error.code().name}"
    except Exception as error:  # noqa: BLE001 - after any error, grpc.aio is used
        return f"grpcio {grpc.__version__}: the test call failed: {error!r}"


def _test_server() -> str | None:
    deadlines: list[float | None] = []

    def echo(request: bytes, deadline: float | None, done: Done) -> Call:
        deadlines.append(deadline)
        done(Reply(lambda: request))
        return _CompletedCall()

    with ThreadPoolExecutor(1, thread_name_prefix="trial") as executor:
        gate = DrainGate()
        endpoint = Endpoint("127.0.0.1:0", options=[("grpc.so_reuseport", 0)])
        server = CompletionQueueServer(executor, endpoint, gate, Metrics(lambda: ()), logged=False)
        server.add(Service("latentserve.Trial", {"Echo": echo}))
        port = server.start()
        try:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                call = channel.unary_unary("/latentserve.Trial/Echo")
                reply = call(b"hello", timeout=_TEST_TIMEOUT_S)
        finally:
            # With a grace: gRPC core writes a line to stderr for a connection that is cut off.
            stopped = server.stop_and_wait(_TEST_TIMEOUT_S, _TEST_TIMEOUT_S)
    if reply != b"hello" or None in deadlines:
        return f"grpcio {grpc.__version__}: the reply of the test call differs from the request"
    if not stopped or gate.in_flight:
        return f"grpcio {grpc.__version__}: the test server did not stop"
    return None


class _CompletedCall:
    """A call that completes before it can be cancelled."""

    def cancel(self) -> None:
        """Do nothing."""
