"""All servers of the conformance cases in one process, each in a fixed state."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from conformance_server import engines
from conformance_server.breakages import Breakage
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import generative_service_pb2_grpc
from latentserve_server.app import App
from latentserve_server.config import Settings
from latentserve_server.engine.factory import EngineFactory, onnx_engine
from latentserve_server.errors import (
    CallError,
    EngineFailure,
    InvalidRequest,
    QueueFull,
    Unavailable,
)
from latentserve_server.transport.base import Endpoint, Service, Transport
from latentserve_server.transport.security import TokenGuard

ROLES = ("main", "token", "held", "full", "starting", "draining", "failing", "refusing")
MODEL = "mnist-vae"
TOKEN = "conformance-token"
MAX_REQUEST_ROWS, MAX_STREAM_ROWS, MAX_BATCH_ROWS = 1024, 100_000, 64

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SETTLE_S = 0.05
_RETRY_AFTER_S = 0.01
# Timeout of the held calls; it must not expire while the cases run.
_HELD_CALL_TIMEOUT_S = 24 * 3600.0
_STARTING = asyncio.Lock()


class RefusingGuard(TokenGuard):
    """Guard that refuses the first attempts of a call, as its metadata requests."""

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        """Raise the error of `conformance-refuse: CODE TIMES` for the first TIMES attempts."""
        sent = dict(metadata or ())
        if "conformance-refuse" not in sent:
            return
        code, _, times = _text(sent["conformance-refuse"]).partition(" ")
        attempts_before = int(_text(sent.get("grpc-previous-rpc-attempts", "0")))
        if attempts_before < int(times):
            raise _refusal(code, attempts_before + 1)


class FixtureTransport:
    """Transport with a breakage of its services and an optional guard."""

    def __init__(
        self, inner: Transport, breakage: Breakage, role: str, guard: TokenGuard | None
    ) -> None:
        self._inner = inner
        self._breakage = breakage
        self._role = role
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, endpoint: Endpoint, services: Sequence[Service]) -> int:
        """Start with services that have the breakage."""
        if self._guard is not None:
            endpoint = replace(endpoint, guard=self._guard)
        broken = [self._breakage.service(service, self._role) for service in services]
        # One after the other: grpc.aio's task of a server is found among those that are new.
        async with _STARTING:
            return await self._inner.start(endpoint, broken)


class Servers:
    """All servers of the cases; create and use them in one event loop.

    Args:
        exports: the models; `main` serves all of them, the other servers one.
        folder: an empty folder, for the exports of one model and a token.
        transport: aio or cq.
        breakage: the breakage of all servers.
    """

    def __init__(self, exports: Path, folder: Path, transport: str, breakage: Breakage) -> None:
        self._transport = transport
        self._breakage = breakage
        self._exports = exports
        self._one_model = folder / "exports"
        shutil.copytree(exports / MODEL, self._one_model / MODEL)
        self._token_file = folder / "token"
        self._token_file.write_text(TOKEN, "utf-8")
        self._released = threading.Event()
        self._holding = {role: threading.Event() for role in ROLES}
        self._apps: dict[str, App] = {}
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: dict[str, asyncio.Future[Any]] = {}

    async def start(self) -> dict[str, str]:
        """Start all servers; return their addresses by role when each is in its state."""
        for role in ROLES:
            self._apps[role] = self._app(role)
        for role in ROLES:
            self._tasks[f"start {role}"] = asyncio.ensure_future(self._apps[role].start())
        for role in ROLES:
            if role != "starting":
                await self._tasks[f"start {role}"]
        await self._until_listening("starting")
        await self._fill()
        await self._drain()
        await self.apply_breakage()
        return {role: app.address for role, app in self._apps.items()}

    async def apply_breakage(self) -> None:
        """Set the health status that the breakage requires."""
        healthy = self._breakage.name != "unhealthy"
        status = _SERVING if healthy else _NOT_SERVING
        names = {version.name for version in self._apps["main"].repository.versions()}
        services = ("", "latentserve.v1.GenerativeService", "latentserve.v1.ModelService")
        for name in (*services, *names):
            await self._apps["main"]._health.set(name, status)

    async def stop(self) -> None:
        """Release the held calls and stop all servers."""
        self._released.set()
        await asyncio.gather(self._tasks["start starting"])
        stopping = [app.stop() for role, app in self._apps.items() if role != "draining"]
        await asyncio.gather(*stopping, self._tasks["drain"])
        for channel in self._channels:
            await channel.close()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _until_listening(self, role: str) -> None:
        """Wait for the port of a server whose start does not finish; raise its error if any."""
        task, app = self._tasks[f"start {role}"], self._apps[role]
        await _until(lambda: app.port > 0 or task.done())
        if task.done():
            task.result()

    def _app(self, role: str) -> App:
        settings = Settings(
            exports=self._exports if role == "main" else self._one_model,
            listen="127.0.0.1:0",
            device="cpu",
            default_model=MODEL,
            threads=1,
            transport=self._transport,
            max_batch_rows=MAX_BATCH_ROWS if role != "full" else 1,
            max_request_rows=MAX_REQUEST_ROWS if role != "full" else 4,
            max_stream_rows=MAX_STREAM_ROWS,
            queue_rows=4096 if role != "full" else 4,
            token_file=str(self._token_file) if role == "token" else "",
            allow_plaintext_token="yes" if role == "token" else "no",
            grace_s=3600,
            watchdog_s=0,  # it would treat the held batches as hung
        )
        app = App(settings, self._engine_factory(role))
        guard = RefusingGuard() if role == "refusing" else None
        app._transport = FixtureTransport(app._transport, self._breakage, role, guard)
        return app

    def _engine_factory(self, role: str) -> EngineFactory:
        if role in ("held", "full", "draining", "starting"):
            return engines.held(self._released, self._holding[role], hold_start=role == "starting")
        return engines.failing if role == "failing" else onnx_engine

    def _call(self, role: str, name: str) -> asyncio.Future[Any]:
        """Start a call that is held."""
        channel = grpc.aio.insecure_channel(
            self._apps[role].address,
            [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
        )
        self._channels.append(channel)
        stub: Any = generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]
        call = asyncio.ensure_future(
            _outcome(stub.Sample(pb.SampleRequest(count=1), timeout=_HELD_CALL_TIMEOUT_S))
        )
        self._tasks[name] = call
        return call

    async def _fill(self) -> None:
        """Send calls until one is refused: the engine holds one call, and the queue is full."""
        self._call("full", "held while full")
        await _until(self._holding["full"].is_set)
        refused_in_a_row = 0
        for number in range(100):
            call = self._call("full", f"fill {number}")
            done, _ = await asyncio.wait({call}, timeout=_SETTLE_S)
            refused_in_a_row = refused_in_a_row + 1 if done else 0
            # Twice, in case the engine takes the next batch from the queue in between.
            if refused_in_a_row == 2:
                return
        raise RuntimeError("the queue of the server `full` did not fill")

    async def _drain(self) -> None:
        """Start the drain of a server while a call is held."""
        app = self._apps["draining"]
        self._call("draining", "held while draining")
        await _until(self._holding["draining"].is_set)
        self._tasks["drain"] = asyncio.ensure_future(app.stop())
        for number in range(100):
            probe = self._call("draining", f"probe {number}")
            done, _ = await asyncio.wait({probe}, timeout=_SETTLE_S)
            if done:
                return
        raise RuntimeError("the server `draining` still accepts calls")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def _outcome(call: Any) -> object:
    """Return the reply or the RpcError of a call."""
    try:
        return await call
    except grpc.RpcError as error:
        return error


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _refusal(code: str, attempt: int) -> CallError:
    metadata = {"attempt": str(attempt)}
    message = f"attempt {attempt} is refused by the test server"
    if code == "UNAVAILABLE":
        return Unavailable(message, metadata=metadata, retry_after_s=_RETRY_AFTER_S)
    if code == "RESOURCE_EXHAUSTED":
        return QueueFull(message, metadata=metadata, retry_after_s=_RETRY_AFTER_S)
    if code == "INVALID_ARGUMENT":
        return InvalidRequest(message, metadata=metadata)
    if code == "INTERNAL":
        return EngineFailure(message, metadata=metadata)
    error = CallError(message, metadata=metadata)
    error.code = code
    return error
