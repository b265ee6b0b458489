"""The count of calls in flight on an event loop; `interceptors` has the one for threads."""

from __future__ import annotations

import asyncio

from latentserve_server.errors import Unavailable


class DrainGate:
    """Counts the calls in flight, refuses new ones while the server drains, and holds replies."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._passing = asyncio.Event()
        self._passing.set()

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and have not ended."""
        return self._in_flight

    def __enter__(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down; try another one", retry_after_s=1.0)
        self._in_flight += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def hold(self) -> None:
        """Hold every reply until `release`."""
        self._passing.clear()

    def release(self) -> None:
        """Hold no more."""
        self._passing.set()

    async def pass_out(self) -> None:
        """Wait until replies may be sent."""
        await self._passing.wait()

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new calls and wait for those in flight; False where some are left."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
