"""Server with a part that fails: `failing_threads.py PART FILE [flags]`.

The part fails with a MemoryError, or hangs, as soon as FILE exists; the batches of the part
"batch-hangs" hang if a latent is above 100, until FILE exists. With --workers, it is started
again for each worker, as `... --worker FD NUMBER`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from latentserve_server import __main__ as program
from latentserve_server.app import App
from latentserve_server.batching.batcher import Batcher
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.repository.watchdog import Watchdog
from latentserve_server.supervisor import control_loop, worker
from latentserve_server.supervisor.control_loop import Supervisor
from latentserve_server.supervisor.ipc import IpcChannel
from latentserve_server.transport.completion_queue import acceptor, poller

PART, FILE = sys.argv[1], Path(sys.argv[2])
IS_WORKER = sys.argv[3:4] == ["--worker"]


def failing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which raises MemoryError as soon as the file exists."""

    def call(*arguments: Any) -> Any:
        if FILE.exists():
            raise MemoryError(f"injected into {PART}")
        return function(*arguments)

    return call


def hanging(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which does not return while the file exists."""

    def call(*arguments: Any) -> Any:
        while FILE.exists():
            time.sleep(0.01)
        return function(*arguments)

    return call


def hanging_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the `run` of an engine, which hangs for some inputs until the file exists."""

    def run(engine: OnnxEngine, operation: str, inputs: Any) -> Any:
        while (inputs[0] > 100).any() and not FILE.exists():
            time.sleep(0.01)
        return function(engine, operation, inputs)

    return run


async def fail_main_loop() -> None:
    """Raise an error in the loop of grpc.aio that accepts calls."""
    while True:
        await asyncio.sleep(0.05)
        for task in asyncio.all_tasks():
            running: Any = task
            if FILE.exists() and "_server_main_loop" in running.get_coro().__qualname__:
                running._fut_waiter.set_exception(MemoryError("injected into the main loop"))
                return


def inject() -> None:
    """Replace a function of the part."""
    if PART == "polling":
        poller.time = SimpleNamespace(time=failing(time.time))  # type: ignore[assignment,attr-defined]
    elif PART == "accepting":
        accept = acceptor.Acceptor.request_next
        acceptor.Acceptor.request_next = failing(accept)  # type: ignore[method-assign]
    elif PART == "polling-hangs":
        poller.time = SimpleNamespace(time=hanging(time.time))  # type: ignore[assignment,attr-defined]
    elif PART == "loop-hangs":
        Watchdog.check = hanging(Watchdog.check)  # type: ignore[method-assign]
    elif PART == "watchdog":
        Watchdog.check = failing(Watchdog.check)  # type: ignore[method-assign]
    elif PART == "engine":
        Batcher.run_next = failing(Batcher.run_next)  # type: ignore[method-assign]
    elif PART == "batch-hangs":
        OnnxEngine.run = hanging_batch(OnnxEngine.run)  # type: ignore[method-assign]
    elif PART == "main-loop":
        started = App.start

        async def start(app: App) -> None:
            await started(app)
            app._spawn(fail_main_loop())

        App.start = start  # type: ignore[assignment,method-assign]
    elif PART == "supervisor":
        Supervisor.step = failing(Supervisor.step)  # type: ignore[method-assign]
    elif PART == "commands" and IS_WORKER:
        IpcChannel.receive = failing(IpcChannel.receive)  # type: ignore[method-assign]


def main() -> int:
    inject()
    if IS_WORKER:
        return worker.run_worker(int(sys.argv[4]), int(sys.argv[5]))
    command = (sys.executable, *sys.argv[:3], "--worker")
    supervise = control_loop.supervise
    control_loop.supervise = lambda settings: supervise(settings, command)  # type: ignore[assignment,misc]
    sys.argv = [sys.argv[0], *sys.argv[3:]]
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
