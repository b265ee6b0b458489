"""The transport on grpcio's completion queue: less CPU per call than grpc.aio.

`grpc.server` owns the port, the shutdown and reflection, through its public API. The methods
of our services and of health are registered below it, where an event costs one Python call:
`polling` has the loop, `completion_queue` the calls themselves.
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
from latentserve_server.transport.completion_queue.calls import Method
from latentserve_server.transport.completion_queue.inline_execution import InlineExecution
from latentserve_server.transport.drain import DrainGate
from latentserve_server.transport.interceptors import Interceptors

log = logging.getLogger(__name__)

# Reflection holds a thread per stream; those who hold all of them keep each other waiting only.
_REFLECTION_THREADS = 4
_STOP_LIMIT_S = 5.0
_TRIAL_LIMIT_S = 3.0

_OPERATIONS = (
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
)


class CompletionQueueServer:
    """A grpc.server whose hot methods are served on its polling thread.

    Args:
        executor: for large requests and slow replies.
        endpoint: where to listen, and whom to let in.
        gate, metrics: count the calls of the services that drain.
        logged: whether these calls are for the log.
        inline: batches that the polling thread runs.
        tracing: traces them, None does not.
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
    ) -> None:
        self._logged = logged
        self._inline = InlineExecution(lambda: gate.in_flight) if inline is None else inline
        self._tracing = tracing
        self._executor = executor
        self._endpoint = endpoint
        self._gate = gate
        self._metrics = metrics
        # Never shut down: grpc.server would lose its polling thread if a call came after that.
        pool = ThreadPoolExecutor(_REFLECTION_THREADS, thread_name_prefix="reflection")
        self._server: Any = grpc.server(pool, options=list(endpoint.options))
        self._arrivals: list[Acceptor] = []

    def add(self, service: Service) -> None:
        """Register the methods of a service; before the start."""
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
                interceptors = Interceptors(self._gate, self._endpoint.guard, rpc)
            method = Method(name, self._executor, interceptors, service.unary.get(short), stream)
            self._server._state.server.register_method(method.name)
            self._arrivals.append(Acceptor(method, self._server))

    def enable_reflection(self, names: Sequence[str]) -> None:
        """Serve reflection of the services `names` on threads, as grpcio has it."""
        reflection.enable_server_reflection(names, self._server)

    def start(self) -> int:
        """Take calls and return the port; raises SettingsError if it cannot be had."""
        port = bind(self._server, self._endpoint)
        poller.start(self._server, self._inline)
        for arrivals in self._arrivals:
            # What is in this set keeps the polling thread alive; its last event takes it out.
            self._server._state.rpc_states.add(arrivals)
            arrivals.ask()
        return port

    def stop(self, grace_s: float) -> Event:
        """Take no more calls, cut off those that last longer; the event says when it is done."""
        stopped: Event = self._server.stop(grace_s)
        return stopped


class CompletionQueueTransport:
    """Implements `transport.Transport`. `why_unusable` says whether it can work here.

    Args:
        executor: for large requests and slow replies.
        metrics: counts the calls of the services.
        tracing: traces them, None does not.
    """

    def __init__(
        self, executor: Executor, metrics: Metrics, tracing: Tracing | None = None
    ) -> None:
        self._tracing = tracing
        self.health = HealthService()
        self._executor = executor
        self._metrics = metrics
        self._gate = DrainGate()
        self._inline = InlineExecution(lambda: self._gate.in_flight)
        self._server: CompletionQueueServer | None = None

    def take(self, batcher: Batcher) -> bool:
        """Run a short batch on the polling thread; see `Batcher`'s `offer`."""
        return self._inline.take(batcher)

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and whose last byte is not written."""
        return self._gate.in_flight

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Serve and return the port; raises SettingsError if it cannot be had."""
        server = CompletionQueueServer(
            *(self._executor, endpoint, self._gate, self._metrics),
            inline=self._inline,
            tracing=self._tracing,
        )
        checks, watches = {"Check": self.health.check}, {"Watch": self.health.watch}
        board = Service(health.SERVICE_NAME, checks, watches, drains=False)
        for service in (*services, board):
            server.add(service)
        names = [service.name for service in (*services, board)]
        server.enable_reflection([*names, reflection.SERVICE_NAME])
        port = server.start()
        self._server = server
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
        """Refuse new calls and wait for those in flight; False where some are left."""
        loop = asyncio.get_running_loop()
        idle = asyncio.Event()

        def when_idle() -> None:  # on any thread
            loop.call_soon_threadsafe(idle.set)

        self._gate.close(when_idle)
        try:
            await asyncio.wait_for(idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, grace_s: float) -> None:
        """Cut off what is left after `grace_s`, and close the port."""
        if self._server is not None:
            stopped = self._server.stop(grace_s)
            loop = asyncio.get_running_loop()
            if not await loop.run_in_executor(None, stopped.wait, grace_s + _STOP_LIMIT_S):
                log.error("grpc.server did not stop within %g s", grace_s + _STOP_LIMIT_S)


def why_unusable() -> str | None:
    """Return why this grpcio cannot carry the transport, or None.

    What it is built on is private to grpcio and may change with any release, so it is
    tried out: a server on a port of its own answers one call, and stops.
    """
    missing = [name for name in _OPERATIONS if not hasattr(cygrpc, name)] + poller.missing()
    if missing:
        return f"grpcio {grpc.__version__} has no {', '.join(missing)}"
    try:
        return _try_out()
    except grpc.RpcError as error:
        return f"grpcio {grpc.__version__}: a call to itself failed: {error.code().name}"
    except Exception as error:  # noqa: BLE001 - whatever differs, grpc.aio is there
        return f"grpcio {grpc.__version__}: a call to itself failed: {error!r}"


def _try_out() -> str | None:
    deadlines: list[float | None] = []

    def echo(request: bytes, deadline: float | None, done: Done) -> Call:
        deadlines.append(deadline)
        done(Reply(lambda: request))
        return _Answered()

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
                reply = call(b"hello", timeout=_TRIAL_LIMIT_S)
        finally:
            # Gracefully: gRPC core writes a line to stderr about connections that are cut off.
            stopped = server.stop(_TRIAL_LIMIT_S).wait(_TRIAL_LIMIT_S)
    if reply != b"hello" or None in deadlines:
        return f"grpcio {grpc.__version__}: a call to itself came back changed"
    if not stopped or gate.in_flight:
        return f"grpcio {grpc.__version__}: a server of its own did not stop"
    return None


class _Answered:
    """A call that was answered before it could be cancelled."""

    def cancel(self) -> None:
        """Do nothing."""
