"""Program of one worker: `python -m latentserve_server.supervisor.worker FD NUMBER`.

Started by the supervisor, which tells it over the descriptor FD what to do. SIGTERM and SIGINT
drain a worker, however often they come: a service manager or a terminal may send them to every
process of the group, and the supervisor sends its own order after them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection

from latentserve_server import exit_status
from latentserve_server.app import App
from latentserve_server.config import Settings
from latentserve_server.engine.factory import EngineFactory, onnx_engine
from latentserve_server.errors import EngineStuck, LatentserveError, StartupError, Unavailable
from latentserve_server.observability import log_format
from latentserve_server.process import run
from latentserve_server.repository.lifecycle import Outcome
from latentserve_server.supervisor.ipc import IpcChannel, IpcClosed, IpcRequest
from latentserve_server.supervisor.messages import (
    RELOAD_LIMIT_S,
    CannotStart,
    LastReport,
    Ping,
    Reload,
    ReportMetrics,
    Serving,
    Stop,
)

log = logging.getLogger(__name__)


def run_worker(descriptor: int, number: int, engine_factory: EngineFactory = onnx_engine) -> int:
    """Serve until told to stop; return the exit status."""
    log_format.lose_quietly()
    channel = IpcChannel(Connection(descriptor))
    try:
        settings = channel.receive()
    except IpcClosed:
        return exit_status.FAILED
    assert isinstance(settings, Settings)  # noqa: S101 - the first message, see `process`
    log_format.configure(
        settings.log_format,
        settings.log_level,
        worker=number,
        log_requests=settings.log_requests == "yes",
    )
    try:
        asyncio.run(_serve(settings, channel, engine_factory))
    except EngineStuck as error:
        exit_status.end_stuck(error)
    except StartupError as error:
        log.error("%s", error)
        channel.tell(CannotStart(str(error)))
        return exit_status.status_of(error)
    return exit_status.STOPPED


async def _serve(settings: Settings, channel: IpcChannel, engine_factory: EngineFactory) -> None:
    orders = _Orders(channel, asyncio.get_running_loop())
    app = App(settings, engine_factory, orders.reload_everywhere)
    orders.follow(app)
    try:
        await run(app, on_serving=orders.serving)
    finally:
        channel.tell(LastReport(list(app.metrics.registry.collect()), app.cut_off))


class _Orders:
    """Does what the supervisor says."""

    def __init__(self, channel: IpcChannel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._serving = threading.Event()
        self._stopping = False

    def follow(self, app: App) -> None:
        """Take signals and orders from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop_once, app)
        self._loop.add_signal_handler(
            signal.SIGHUP, lambda: log.warning("SIGHUP is for the supervisor; nothing is reloaded")
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        threading.Thread(target=self._listen, args=(app,), name="orders", daemon=True).start()

    def serving(self) -> None:
        """Tell the supervisor that calls are answered."""
        self._serving.set()
        self._channel.tell(Serving())

    def reload_everywhere(self, names: Collection[str]) -> list[Outcome]:
        """Have the supervisor reload every worker, this one too; return the joined outcomes.

        Raises what `Repository.reload` does, and Unavailable where not all could be asked.
        """
        asked = self._channel.ask(Reload(frozenset(names)))
        try:
            outcomes: list[Outcome] = asked.result(RELOAD_LIMIT_S)
        except (IpcClosed, TimeoutError) as error:
            raise Unavailable(
                "not every worker has answered; see GetModel for what is served", retry_after_s=5.0
            ) from error
        return outcomes

    def _stop_once(self, app: App) -> None:
        if not self._stopping:
            self._stopping = True
            app.handle_signal()

    def _stop(self, app: App, times: int) -> None:
        """Follow the orders to stop: the first may come after a signal, the second is meant."""
        self._stop_once(app)
        if times > 1:
            app.handle_signal()

    def _listen(self, app: App) -> None:
        stops = 0
        while True:
            try:
                message = self._channel.receive()
            except IpcClosed:
                log.error("the supervisor is gone; this worker stops")
                self._call(self._stop_once, app)
                return
            if isinstance(message, Stop):
                stops += 1
                self._call(self._stop, app, stops)
            elif isinstance(message, IpcRequest) and isinstance(message.body, ReportMetrics):
                self._channel.answer(message, list(app.metrics.registry.collect()))
            elif isinstance(message, IpcRequest) and isinstance(message.body, Ping):
                self._channel.answer(message, True)
            elif isinstance(message, IpcRequest) and isinstance(message.body, Reload):
                threading.Thread(
                    target=self._reload, args=(app, message, message.body.names), daemon=True
                ).start()

    def _reload(self, app: App, request: IpcRequest, names: frozenset[str]) -> None:
        # While it loads it may have looked at the folder before the change.
        self._serving.wait()
        try:
            answer: object = app.repository.reload(names)
        except LatentserveError as error:
            answer = error
        except Exception as error:  # others may not survive the way to another process
            log.exception("the reload failed")
            answer = LatentserveError(f"a worker failed to reload: {type(error).__name__}")
        self._channel.answer(request, answer)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: the worker is at its end
            log.debug("an order came too late")


if __name__ == "__main__":
    sys.exit(run_worker(int(sys.argv[1]), int(sys.argv[2])))
