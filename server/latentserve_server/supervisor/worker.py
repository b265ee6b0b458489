"""Program of one worker: `python -m latentserve_server.supervisor.worker FD NUMBER`.

The supervisor starts it and sends commands over the file descriptor FD. SIGTERM and SIGINT drain
a worker, also when repeated: a service manager or a terminal may send them to every process of the
group, and the supervisor then sends its own `Stop`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from typing import NoReturn

from latentserve_server import exit_status
from latentserve_server.app import App
from latentserve_server.config import Settings
from latentserve_server.engine.factory import EngineFactory, onnx_engine
from latentserve_server.errors import EngineStuck, LatentserveError, StartupError, Unavailable
from latentserve_server.observability.logs import format as log_format
from latentserve_server.process import run
from latentserve_server.repository.lifecycle import Outcome
from latentserve_server.supervisor.ipc import IpcChannel, IpcClosed, IpcRequest
from latentserve_server.supervisor.messages import (
    RELOAD_TIMEOUT_S,
    CannotStart,
    LastReport,
    Ping,
    Reload,
    ReportMetrics,
    ReportState,
    Serving,
    Stop,
)
from latentserve_server.vital_thread import VitalThread

log = logging.getLogger(__name__)


def run_worker(descriptor: int, number: int, engine_factory: EngineFactory = onnx_engine) -> int:
    """Serve until a `Stop` or a signal; return the exit status."""
    log_format.ignore_write_errors_at_exit()
    channel = IpcChannel(Connection(descriptor))
    try:
        settings = channel.receive()
    except IpcClosed:
        return exit_status.FAILED
    assert isinstance(settings, Settings)  # noqa: S101 - first message, see `worker_process`
    log_format.configure(
        settings.log_format,
        settings.log_level,
        worker=number,
        log_requests=settings.log_requests == "yes",
    )
    try:
        asyncio.run(_serve_and_end(settings, channel, engine_factory))
    except StartupError as error:
        log.error("%s", error)
        channel.send(CannotStart(str(error)))
        return exit_status.status_of(error)


async def _serve_and_end(
    settings: Settings, channel: IpcChannel, engine_factory: EngineFactory
) -> NoReturn:
    """Serve, then end the process, whatever its other threads do (see `exit_status.end`)."""
    try:
        await _serve(settings, channel, engine_factory)
    except EngineStuck as error:
        exit_status.end_stuck(error)
    exit_status.end(exit_status.STOPPED)


async def _serve(settings: Settings, channel: IpcChannel, engine_factory: EngineFactory) -> None:
    commands = _SupervisorCommands(channel, asyncio.get_running_loop())
    app = App(settings, engine_factory, commands.reload_everywhere)
    commands.start(app)
    try:
        await run(app, on_serving=commands.report_serving)
    finally:
        channel.send(LastReport(list(app.metrics.registry.collect()), app.cut_off))


class _SupervisorCommands:
    """Handles the signals of a worker and the commands of the supervisor."""

    def __init__(self, channel: IpcChannel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._serving = threading.Event()
        self._stopping = False

    def start(self, app: App) -> None:
        """Start to handle signals and commands."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._drain, app)
        self._loop.add_signal_handler(
            signal.SIGHUP,
            lambda: log.warning("SIGHUP ignored: send it to the supervisor to reload"),
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        VitalThread(self._listen, args=(app,), name="commands").start()

    def report_serving(self) -> None:
        """Tell the supervisor that this worker is serving."""
        self._serving.set()
        self._channel.send(Serving())

    def reload_everywhere(self, names: Collection[str]) -> list[Outcome]:
        """Request a reload of all workers, including this one; return the joined outcomes.

        Raises the errors of `Repository.reload`, and Unavailable if not all workers replied.
        """
        pending = self._channel.request(Reload(frozenset(names)))
        try:
            outcomes: list[Outcome] = pending.result(RELOAD_TIMEOUT_S)
        except (IpcClosed, TimeoutError) as error:
            raise Unavailable(
                "not all workers replied to the reload; GetModel returns the served version",
                retry_after_s=5.0,
            ) from error
        return outcomes

    def _drain(self, app: App) -> None:
        if not self._stopping:
            self._stopping = True
            app.handle_signal()

    def _stop(self, app: App, times: int) -> None:
        """Drain at the first `Stop`, which may follow a signal; stop at once at the second."""
        self._drain(app)
        if times > 1:
            app.handle_signal()

    def _listen(self, app: App) -> None:
        stops = 0
        while True:
            try:
                message = self._channel.receive()
            except IpcClosed:
                log.error("the supervisor has exited; this worker stops")
                self._call_in_loop(self._drain, app)
                return
            if isinstance(message, Stop):
                stops += 1
                self._call_in_loop(self._stop, app, stops)
            elif isinstance(message, IpcRequest):
                try:
                    self._handle(app, message)
                except Exception as error:  # the next command must be received all the same
                    log.exception("a command of the supervisor failed")
                    failure = f"a command failed in the worker: {type(error).__name__}"
                    self._channel.reply(message, LatentserveError(failure))

    def _handle(self, app: App, request: IpcRequest) -> None:
        if isinstance(request.body, ReportMetrics):
            self._channel.reply(request, list(app.metrics.registry.collect()))
        elif isinstance(request.body, Ping):
            self._channel.reply(request, True)
        elif isinstance(request.body, ReportState):
            self._channel.reply(request, app.state())
        elif isinstance(request.body, Reload):
            threading.Thread(
                target=self._reload, args=(app, request, request.body.names), daemon=True
            ).start()

    def _reload(self, app: App, request: IpcRequest, names: frozenset[str]) -> None:
        # A worker that still starts may have read the folder before the change.
        self._serving.wait()
        try:
            reply: object = app.repository.reload(names)
        except LatentserveError as error:
            reply = error
        except Exception as error:  # other errors may not be picklable
            log.exception("the reload failed")
            reply = LatentserveError(f"a worker failed to reload: {type(error).__name__}")
        self._channel.reply(request, reply)

    def _call_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, because the worker is exiting
            log.debug("ignored a command after the end of the event loop")


if __name__ == "__main__":
    sys.exit(run_worker(int(sys.argv[1]), int(sys.argv[2])))
