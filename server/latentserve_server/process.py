"""One server process from its start to its end, and what its signals mean."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from latentserve_server.app import App
from latentserve_server.config import Settings
from latentserve_server.engine.factory import EngineFactory, onnx_engine


async def run(app: App, on_serving: Callable[[], None] = lambda: None) -> None:
    """Start a server, run it until it is told to stop, and stop it in order.

    Raises a StartupError where it cannot start, and EngineStuck as `App.stop` does.
    """
    starting = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(app.wait())
    await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            if app.port:  # not where a signal came while the models loaded
                on_serving()
            await signalled
    finally:
        signalled.cancel()
        await asyncio.wait({starting})  # loading cannot be interrupted; it takes seconds
        await app.stop()
    starting.result()


async def serve(settings: Settings, engine_factory: EngineFactory = onnx_engine) -> None:
    """Run a server until SIGTERM or SIGINT; SIGHUP reloads."""
    app: App
    loop = asyncio.get_running_loop()
    # Before the app is built, which takes a moment. A signal of that moment waits in the loop.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: app.handle_signal())
    loop.add_signal_handler(signal.SIGHUP, lambda: app.reload())
    app = App(settings, engine_factory)
    await run(app)
