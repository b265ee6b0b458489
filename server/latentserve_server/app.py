"""Builds the server from its parts, runs it, and takes it down without dropping a call."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc_health.v1 import health_pb2

from latentserve.v1 import generative_service_pb2, model_service_pb2  # noqa: F401 - for reflection
from latentserve_server import __version__, device, model_service, service, transport_cq
from latentserve_server.config import Settings
from latentserve_server.device import Device
from latentserve_server.engine import OnnxEngine
from latentserve_server.entry import State
from latentserve_server.errors import DeviceUnavailable, NoModels, SettingsError
from latentserve_server.loader import Engine, Loader, fingerprint
from latentserve_server.manifest import Manifest
from latentserve_server.metrics import Metrics
from latentserve_server.model_service import ModelService
from latentserve_server.repository import Repository
from latentserve_server.security import server_credentials, token_guard
from latentserve_server.service import GenerativeService
from latentserve_server.transport import Endpoint, Service, Transport
from latentserve_server.transport_aio import AioTransport
from latentserve_server.transport_cq import CompletionQueueTransport

log = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_MIN_MESSAGE_BYTES = 4 * 2**20
_MAX_MESSAGE_BYTES = 2**31 - 1  # gRPC takes no larger limit
_CLOSE_TIMEOUT_S = 5.0


EngineFactory = Callable[[Manifest, Device, int], Engine]
"""Makes the engine of a manifest on a device with that many threads."""


def onnx_engine(manifest: Manifest, device: Device, threads: int) -> Engine:
    """Return the real engine."""
    return OnnxEngine(manifest, device, threads=threads)


def choose_transport(name: str, executor: ThreadPoolExecutor, metrics: Metrics) -> Transport:
    """Return the transport `aio` or `cq`; where cq cannot work, aio, with a warning."""
    if name == "cq":
        reason = transport_cq.why_unusable()
        if reason is None:
            return CompletionQueueTransport(executor, metrics)
        log.warning("--transport cq: falling back to grpc.aio: %s", reason)
    return AioTransport(executor, metrics)


class App:
    """One server process: `start`, `wait` for a signal, `stop`.

    Args:
        settings: what the operator decided.
        engine_factory: another engine, for tests of what a slow or failing one does.
    """

    def __init__(self, settings: Settings, engine_factory: EngineFactory = onnx_engine) -> None:
        self.settings = settings
        self._engine_factory = engine_factory
        self.port = 0
        self.metrics = Metrics(lambda: self.repository.entries())
        # Decoding and encoding of large requests and PNG files; two keep the cores for models.
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="codec")
        self._transport = choose_transport(settings.transport, self._executor, self.metrics)
        self._health = self._transport.health
        self._device = device.choose_device(settings.device)
        self.repository = Repository(
            settings.exports,
            Loader(
                self._build_engine,
                max_batch_rows=settings.max_batch_rows,
                queue_rows=settings.queue_rows,
                observer=self.metrics.observer,
            ),
            default_model=settings.default_model,
            max_versions=settings.max_versions,
            on_change=self._on_change,
            on_outcome=self.metrics.reloaded,
        )
        self._threads = settings.threads
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals = 0
        self._signalled = asyncio.Event()

    async def start(self) -> None:
        """Listen, load and warm up every model, then turn health to SERVING.

        The port is open while the models load: health says NOT_SERVING and calls get
        UNAVAILABLE. Raises a StartupError where the server cannot run as asked.
        """
        started = time.monotonic()
        settings = self.settings
        self._scan()
        manifests = self.repository.manifests()
        if settings.default_model and settings.default_model not in {m.name for m in manifests}:
            raise SettingsError(
                f"--default-model {settings.default_model}: there is no such model in "
                f"{settings.exports}, only {', '.join(sorted({m.name for m in manifests}))}"
            )
        self._threads = settings.threads or max(1, device.usable_cores() // max(1, len(manifests)))
        await self._health.set("", _NOT_SERVING)
        for name in (service.SERVICE_NAME, model_service.SERVICE_NAME):
            await self._health.set(name, _NOT_SERVING)
        for entry in self.repository.entries():
            await self._health.set(entry.name, _NOT_SERVING)
        if settings.metrics_listen:
            port = self.metrics.serve(settings.metrics_listen)
            log.info("metrics are at http://%s:%d/metrics", _host(settings.metrics_listen), port)
        endpoint = self._endpoint(_message_limit(settings, manifests))
        self.port = await self._transport.start(endpoint, self._services())
        await self._load()
        for name in (service.SERVICE_NAME, model_service.SERVICE_NAME, ""):
            await self._health.set(name, _SERVING)
        log.info(
            "latentserve %s is serving on %s with %s, %.1f s after its start",
            __version__,
            self.address,
            self._device.provider,
            time.monotonic() - started,
        )
        if settings.poll_s:
            self._spawn(self._poll())

    @property
    def address(self) -> str:
        """HOST:PORT that the server listens on."""
        return f"{_host(self.settings.listen)}:{self.port}"

    def reload(self) -> None:
        """Look at the model folder again, in the background; what came of it is logged."""
        self._spawn(self._reload())

    async def _reload(self) -> None:
        try:
            await self._loop.run_in_executor(None, self.repository.reload)
        except Exception:  # nobody waits for this task, and what is served stays
            log.exception("the reload failed")

    async def _poll(self) -> None:
        """Reload when the folder has changed and then stayed the same for one interval."""
        loaded = previous = await self._fingerprint()
        while True:
            await asyncio.sleep(self.settings.poll_s)
            found = await self._fingerprint()
            # A folder that is still being written differs from one look to the next.
            if found == previous != loaded:
                await self._reload()
                loaded = found
            previous = found

    async def _fingerprint(self) -> int:
        return await self._loop.run_in_executor(None, fingerprint, self.settings.exports)

    def handle_signal(self) -> None:
        """Begin the orderly stop; a second signal cuts all waiting short."""
        self._signals += 1
        self._signalled.set()

    async def wait(self) -> None:
        """Wait for a signal."""
        await self._signalled.wait()

    async def stop(self) -> None:
        """Drain and stop: NOT_SERVING, delay, refuse new calls, finish the old, close."""
        if not self.port:
            return
        for task in self._tasks:
            task.cancel()
        settings = self.settings
        log.info("stopping: %d calls in flight", self._transport.in_flight)
        await self._health.enter_graceful_shutdown()
        if self._signals < 2:
            self._signalled.clear()
        if settings.drain_delay_s:
            # Balancers need a moment to see NOT_SERVING; until then calls are still answered.
            await self._unless_signalled(asyncio.sleep(settings.drain_delay_s))
        drained = await self._unless_signalled(self._transport.drain(timeout_s=settings.grace_s))
        await self._transport.stop(0.1)  # what is left are health watches, and calls out of time
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.repository.close(timeout_s=_CLOSE_TIMEOUT_S))
        self._executor.shutdown(wait=False, cancel_futures=True)
        if drained:
            log.info("stopped: every call was answered")
        else:
            log.warning("stopped: calls were cut off after the grace of %g s", settings.grace_s)

    async def _unless_signalled(self, waiting: object) -> bool:
        """Wait for `waiting`, or for one more signal; return the result, False if cut short."""
        task = asyncio.ensure_future(waiting)  # type: ignore[call-overload]
        signalled = asyncio.ensure_future(self._signalled.wait())
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if task.done():
            return bool(task.result())
        task.cancel()
        return False

    def _scan(self) -> None:
        try:
            self.repository.scan()
        except OSError as error:
            raise SettingsError(
                f"--exports {self.settings.exports} cannot be read: {error.strerror}"
            ) from error

    def _build_engine(self, manifest: Manifest) -> Engine:
        return self._engine_factory(manifest, self._device, self._threads)

    def _endpoint(self, message_bytes: int) -> Endpoint:
        return Endpoint(
            self.settings.listen,
            server_credentials(self.settings),
            token_guard(self.settings),
            options=(
                # Otherwise a second server on the port would start and take half the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", self.settings.max_concurrent_streams),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                # The default, 5 minutes, hangs up on clients that ping every 10 s, as Go's do.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ),
        )

    def _services(self) -> tuple[Service, ...]:
        settings = self.settings
        generative = GenerativeService(
            self.repository,
            max_request_rows=settings.max_request_rows,
            max_stream_rows=settings.max_stream_rows,
            chunk_rows=settings.max_batch_rows,
        )
        models = ModelService(
            self.repository,
            max_request_rows=settings.max_request_rows,
            max_stream_rows=settings.max_stream_rows,
            max_batch_rows=settings.max_batch_rows,
        )
        streams = {"SampleStream": generative.sample_stream}
        return (
            Service(service.SERVICE_NAME, generative.unary_methods(), streams),
            Service(model_service.SERVICE_NAME, models.unary_methods()),
        )

    async def _load(self) -> None:
        """Load the models off the loop; `auto` falls back to the CPU, loudly."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self.repository.load_all)
        except DeviceUnavailable as error:
            if self.settings.device != "auto":
                raise
            log.warning("--device auto: falling back to the CPU: %s", error)
            self._device = device.CPU
            self.repository.close(timeout_s=_CLOSE_TIMEOUT_S)
            self._scan()
            await loop.run_in_executor(None, self.repository.load_all)
        if not any(entry.state is State.READY for entry in self.repository.entries()):
            reasons = "; ".join(
                f"{entry.name} version {entry.version}: {entry.reason}"
                for entry in self.repository.entries()
            )
            raise NoModels(
                f"no model can be served from {self.settings.exports}: "
                f"{reasons or 'it has no <name>/<version>/manifest.json'}"
            )

    def _on_change(self, name: str) -> None:
        """Bring the health of a model up to date; called from the thread that loads."""
        self._loop.call_soon_threadsafe(self._spawn, self._set_model_health(name))

    async def _set_model_health(self, name: str) -> None:
        await self._health.set(name, _SERVING if self.repository.is_ready(name) else _NOT_SERVING)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else; the loop itself keeps no reference to it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _message_limit(settings: Settings, manifests: list[Manifest]) -> int:
    """Return the largest request in bytes.

    It is twice the largest tensor, so that a few rows too many get an error that says so.
    """
    values = max((max(m.image.values, m.latent_dim) for m in manifests), default=0)
    wanted = 2 * settings.max_request_rows * values * 4
    return min(max(_MIN_MESSAGE_BYTES, wanted), _MAX_MESSAGE_BYTES)


async def serve(settings: Settings, engine_factory: EngineFactory = onnx_engine) -> None:
    """Run a server until SIGTERM or SIGINT, then stop it in order."""
    app = App(settings, engine_factory)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.handle_signal)
    loop.add_signal_handler(signal.SIGHUP, app.reload)
    starting = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(app.wait())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            await signalled
    finally:
        signalled.cancel()
        await asyncio.wait({starting})  # loading cannot be interrupted; it takes seconds
        await app.stop()
    starting.result()
