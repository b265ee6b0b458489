"""Counter of calls in flight on an event loop; `flow_control.drain` is thread-safe."""

from __future__ import annotations

import asyncio

from latentserve_server.errors import Unavailable


class DrainGate:
    """Counts calls in flight, refuses new calls during a drain, and can hold replies."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._released = asyncio.Event()
        self._released.set()

    @property
    def in_flight(self) -> int:
        """Number of calls that were admitted and have not ended."""
        return self._in_flight

    def __enter__(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down; try another server", retry_after_s=1.0)
        self._in_flight += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def hold(self) -> None:
        """Hold every reply until `release`."""
        self._released.clear()

    def release(self) -> None:
        """Stop holding replies."""
        self._released.set()

    async def wait_for_release(self) -> None:
        """Wait until replies may be sent."""
        await self._released.wait()

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for calls in flight; return False after the timeout."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
