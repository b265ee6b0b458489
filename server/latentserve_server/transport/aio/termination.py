"""End of the process when grpc.aio accepts no more calls.

grpc.aio accepts calls in one task. If that task fails, grpc.aio logs the error and tries to close
the server, which fails as well: the port stays open, and no call is ever answered.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from latentserve_server import exit_status

# The only private name. If grpc.aio renames it, a test of tests/faults fails.
_LOOP = "_server_main_loop"


class Termination:
    """Ends the process if the task that accepts a server's calls ends before `expect` is called."""

    def __init__(self) -> None:
        self._expected = False

    async def start(self, server: grpc.aio.Server) -> None:
        """Start a server, and watch the task that it creates."""
        before = asyncio.all_tasks()
        await server.start()
        for task in asyncio.all_tasks() - before:
            if getattr(task.get_coro(), "__qualname__", "").endswith(_LOOP):
                task.add_done_callback(self._on_end)

    def expect(self) -> None:
        """Stop watching, before the server is stopped."""
        self._expected = True

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        if not self._expected and not task.cancelled():
            error = task.exception() or RuntimeError("it accepts no more calls")
            exit_status.end_failed("the server of grpc.aio", error)
