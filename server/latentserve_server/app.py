"""Application object that builds, starts and gracefully stops the server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc_health.v1 import health_pb2

from latentserve.v1 import generative_service_pb2, model_service_pb2  # noqa: F401 - for reflection
from latentserve_server import __version__, exit_status
from latentserve_server.config import Settings
from latentserve_server.engine import device
from latentserve_server.engine.factory import EngineFactory, onnx_engine
from latentserve_server.engine.interface import Engine
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.errors import DeviceUnavailable, EngineStuck, NoModels, SettingsError
from latentserve_server.liveness import watch_process
from latentserve_server.manifest.reader import Manifest
from latentserve_server.model_limits import warn_of_unknown
from latentserve_server.observability.logs.rate_limit import LIMIT
from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.metrics_server import MetricsServer, ProcessState
from latentserve_server.observability.tracing_setup import open_tracing
from latentserve_server.repository.lifecycle import Outcome, Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import State
from latentserve_server.repository.watchdog import Watchdog
from latentserve_server.repository.watcher import FolderWatcher
from latentserve_server.services.generative import GENERATIVE_SERVICE, GenerativeService
from latentserve_server.services.models import MODEL_SERVICE, ModelService, describe
from latentserve_server.transport.base import Service
from latentserve_server.transport.factory import choose_transport
from latentserve_server.transport.probes import process_state
from latentserve_server.transport.server_options import endpoint, host, reply_limits

log = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_CLOSE_TIMEOUT_S, _TRACING_CLOSE_TIMEOUT_S = 5.0, 3.0


class App:
    """One server process: `start`, `wait` for a signal, `stop`.

    Args:
        settings: the operator's settings.
        engine_factory: builds the engines; tests pass slow or failing ones.
        reload: handles ReloadModels if this process is one of several workers; by default the
            repository does.
    """

    def __init__(
        self,
        settings: Settings,
        engine_factory: EngineFactory = onnx_engine,
        reload: Callable[[Collection[str]], list[Outcome]] | None = None,
    ) -> None:
        self.settings = settings
        self._engine_factory = engine_factory
        self._reload_models = reload
        self.port = 0
        self.metrics = Metrics(lambda: self.repository.versions())
        # For large requests and PNG files. Two threads leave the cores to the models.
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="codec")
        self._tracing = open_tracing(settings.otlp_endpoint)
        self._transport = choose_transport(
            *(settings.transport, self._executor, self.metrics, self._tracing),
            reply_limits(settings),
        )
        self._health = self._transport.health
        self._device = device.choose_device(
            settings.device, settings.cuda_options, max_batch_rows=settings.largest_batch_rows
        )
        self.repository = Repository(
            settings.exports,
            Loader(
                self._build_engine,
                limits=settings.limits,
                queue_quota=settings.queue_quota(),
                callbacks=self.metrics.callbacks,
                inline_hook=self._transport.take,
                describe=describe,
            ),
            default_model=settings.default_model,
            max_versions=settings.max_versions,
            on_change=self._on_change,
            on_outcome=self.metrics.reloaded,
            on_failure=self.metrics.reload_failed,
        )
        self._folder = FolderWatcher(self.repository, settings.exports)
        self._watchdog = Watchdog(self.repository.versions, limit_s=settings.watchdog_s)
        self._liveness = watch_process(
            lambda: self._transport.turns,
            limit_s=settings.watchdog_s,
            exit_if_silent=settings.watchdog_exit == "yes",
        )
        self._metrics_server: MetricsServer | None = None
        self._serving = False  # the health of the server, as the probes report it
        self._stuck = self.cut_off = False
        self._threads = settings.threads
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals = 0
        self._signalled = asyncio.Event()

    async def start(self) -> None:
        """Listen, load and warm up every model, then set health to SERVING.

        An unshared port is open while the models load: health is NOT_SERVING and calls fail with
        UNAVAILABLE. A shared port is opened after the warm-up: until then, the other processes
        get the calls. Raises StartupError if the server cannot run with these settings.
        """
        started = time.monotonic()
        settings = self.settings
        self._spawn(LIMIT.report_regularly())
        self._scan()
        manifests = self.repository.manifests()
        warn_of_unknown(settings.named_models, {m.name for m in manifests})
        if settings.default_model and settings.default_model not in {m.name for m in manifests}:
            raise SettingsError(
                f"--default-model {settings.default_model}: {settings.exports} does not have "
                f"this model, only {', '.join(sorted({m.name for m in manifests}))}"
            )
        self._threads = device.engine_threads(
            settings.threads, workers=settings.workers, models=len(manifests)
        )
        await self._health.set("", _NOT_SERVING)
        for name in (GENERATIVE_SERVICE, MODEL_SERVICE):
            await self._health.set(name, _NOT_SERVING)
        for entry in self.repository.versions():
            await self._health.set(entry.name, _NOT_SERVING)
        if settings.metrics_listen and settings.workers == 1:
            self._metrics_server = MetricsServer(
                self.metrics.registry, settings.metrics_listen, self.state
            )
        listening = endpoint(settings, manifests)
        self._spawn(listening.guard.renew_regularly())
        if settings.shares_port:
            await self._load()
            if self._signals:
                return
            self.port = await self._transport.start(listening, self._services())
        else:
            self.port = await self._transport.start(listening, self._services())
            await self._load()
        await self._health.set(MODEL_SERVICE, _SERVING)
        await self._set_server_health()
        log.info(
            "latentserve %s is serving on %s with %s, %.1f s after the start",
            __version__,
            self.address,
            self._device.provider,
            time.monotonic() - started,
        )
        if settings.poll_s:
            self._spawn(self._folder.poll(settings.poll_s))
        if settings.watchdog_s:
            self._spawn(self._watch(), vital="the watchdog")
            self._liveness.start()

    @property
    def address(self) -> str:
        """HOST:PORT that the server listens on."""
        return f"{host(self.settings.listen)}:{self.port}"

    def state(self) -> ProcessState:
        """Return the state of this process; from any thread but the event loop's."""
        stuck, stopping = self._watchdog.is_stuck(), self._signals > 0
        return process_state(self._loop, serving=self._serving, stuck=stuck, stopping=stopping)

    def reload(self) -> None:
        """Reload the model folder in the background; the outcome is logged."""
        self._spawn(self._folder.reload())

    async def _watch(self) -> None:
        """Update health from the watchdog, and end the process if --watchdog-exit asks for it."""
        while True:
            await asyncio.sleep(self._watchdog.interval_s)
            for name in self._watchdog.check():
                await self._set_model_health(name)
                await self._set_server_health()
            if self._watchdog.is_stuck() and self.settings.watchdog_exit == "yes":
                log.error("--watchdog-exit: this process exits so that it can be replaced")
                self._stuck = True
                self.handle_signal()
                return

    def handle_signal(self) -> None:
        """Begin the graceful stop; a second signal ends its waits."""
        self._signals += 1
        self._signalled.set()

    async def wait(self) -> None:
        """Wait for a signal."""
        await self._signalled.wait()

    async def stop(self) -> None:
        """Drain and stop: NOT_SERVING, delay, refuse new calls, finish calls in flight, close.

        On a shared port, new calls go to the other processes and are not refused. Raises
        EngineStuck if the watchdog asked for the stop.
        """
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            task.cancel()
        await loop.run_in_executor(None, self._liveness.stop)
        drained = await self._drain() if self.port else True
        timeout_s = 0.0 if self._stuck else _CLOSE_TIMEOUT_S
        await loop.run_in_executor(None, lambda: self.repository.close(timeout_s=timeout_s))
        self._executor.shutdown(wait=False, cancel_futures=True)
        if (tracing := self._tracing) is not None:
            await loop.run_in_executor(
                None, lambda: tracing.close(timeout_s=min(timeout_s, _TRACING_CLOSE_TIMEOUT_S))
            )
        if (metrics_server := self._metrics_server) is not None:
            await loop.run_in_executor(None, metrics_server.close)
        LIMIT.report(final=True)
        self.cut_off = not drained
        if self._stuck:
            raise EngineStuck("an engine was stuck; the calls that waited for it were cut off")
        if not self.port:
            return
        if drained:
            log.info("stopped: every call was completed")
        elif self._signals > 1:
            log.warning("stopped: calls were cut off by a second signal")
        else:
            log.warning("stopped: calls were cut off after --grace-s %g", self.settings.grace_s)

    async def _drain(self) -> bool:
        """Drain and stop the transport; return whether every call was completed."""
        settings, transport = self.settings, self._transport
        log.info("stopping: %d calls in flight", transport.in_flight)
        self._serving = False
        await self._health.enter_graceful_shutdown()
        if self._signals < 2:
            self._signalled.clear()
        if settings.drain_delay_s:
            # Calls are still served until load balancers have noticed NOT_SERVING.
            await self._unless_signalled(asyncio.sleep(settings.drain_delay_s))
        drain = transport.hand_over if settings.shares_port else transport.drain
        drained = await self._unless_signalled(drain(timeout_s=settings.grace_s))
        await transport.stop(0.1)  # cuts off health watches, and calls that exceeded the grace
        return drained

    async def _unless_signalled(self, waiting: object) -> bool:
        """Wait for `waiting` or one more signal; return the result, False after a signal."""
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
        engine = self._engine_factory(manifest, self._device, self._threads)
        if isinstance(engine, IoBindingEngine):
            engine.on_padding = self.metrics.callbacks(manifest.name, manifest.version).padded
        return engine

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
            reload=self._reload_models,
        )
        streams = {"SampleStream": generative.sample_stream}
        return (
            Service(GENERATIVE_SERVICE, generative.unary_methods(), streams),
            Service(MODEL_SERVICE, models.unary_methods()),
        )

    async def _load(self) -> None:
        """Load the models in a thread; device `auto` falls back to the CPU with a warning."""
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
        if not any(entry.state is State.READY for entry in self.repository.versions()):
            reasons = "; ".join(
                f"{entry.name} version {entry.version}: {entry.reason}"
                for entry in self.repository.versions()
            )
            raise NoModels(
                f"no model can be served from {self.settings.exports}: "
                f"{reasons or 'it has no <name>/<version>/manifest.json'}"
            )

    def _on_change(self, name: str) -> None:
        """Update the health of a model; called from the thread that loads models."""
        self._loop.call_soon_threadsafe(self._spawn, self._set_model_health(name))

    async def _set_model_health(self, name: str) -> None:
        healthy = self.repository.is_ready(name) and not self._watchdog.is_stuck(name)
        await self._health.set(name, _SERVING if healthy else _NOT_SERVING)

    async def _set_server_health(self) -> None:
        self._serving = not self._watchdog.is_stuck()
        status = _SERVING if self._serving else _NOT_SERVING
        for name in (GENERATIVE_SERVICE, ""):
            await self._health.set(name, status)

    def _spawn(self, work: Coroutine[Any, Any, None], *, vital: str = "") -> None:
        """Run a coroutine as a task, and keep a reference to it, which the loop does not.

        If a task with a name in `vital` fails, the process ends.
        """
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._on_task_end(task, vital))

    def _on_task_end(self, task: asyncio.Task[None], vital: str) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and vital:
            exit_status.end_failed(vital, error)
        elif error is not None:
            log.error("a background task failed", exc_info=error)
