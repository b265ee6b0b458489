"""Lifecycle and signal handling of one server process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import NoReturn

from latentserve_server import exit_status
from latentserve_server.app import App
from latentserve_server.config import Settings
from latentserve_server.engine.factory import EngineFactory, onnx_engine
from latentserve_server.errors import EngineStuck


async def run(app: App, on_serving: Callable[[], None] = lambda: None) -> None:
    """Start a server, wait for a stop signal, and stop the server gracefully.

    `on_serving` is called once the server serves. Raises StartupError if the server cannot start,
    and EngineStuck as `App.stop` does.
    """
    starting = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(app.wait())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            if app.port:  # 0 if a signal arrived while the models were loading
                on_serving()
            await signalled
    finally:
        signalled.cancel()
        await asyncio.wait({starting})  # loading takes seconds and cannot be interrupted
        await app.stop()
    starting.result()


async def serve(settings: Settings, engine_factory: EngineFactory = onnx_engine) -> None:
    """Run a server until SIGTERM or SIGINT. SIGHUP reloads the model folder."""
    app: App
    loop = asyncio.get_running_loop()
    # Installed before the app is built: the event loop delivers a signal that arrives meanwhile.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: app.handle_signal())
    loop.add_signal_handler(signal.SIGHUP, lambda: app.reload())
    app = App(settings, engine_factory)
    await run(app)


async def serve_and_end(
    settings: Settings, engine_factory: EngineFactory = onnx_engine
) -> NoReturn:
    """Run `serve`, then end the process, whatever its other threads do (see `exit_status.end`).

    Raises StartupError if the server cannot start.
    """
    try:
        await serve(settings, engine_factory)
    except EngineStuck as error:
        exit_status.end_stuck(error)
    exit_status.end(exit_status.STOPPED)
