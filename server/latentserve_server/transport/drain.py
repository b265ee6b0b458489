"""Count of the calls in flight, which refuses new calls while the server drains."""

from __future__ import annotations

import threading
from collections.abc import Callable

from latentserve_server.errors import Unavailable


class DrainGate:
    """Counts the calls in flight, refuses new ones while the server drains, and holds replies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._when_idle: Callable[[], None] | None = None
        self._held: list[Callable[[], None]] | None = None
        self.in_flight = 0

    def enter(self) -> None:
        """Admit a call; raises Unavailable while the server drains."""
        with self._lock:
            if self._when_idle is not None:
                raise Unavailable("the server is shutting down; try another one", retry_after_s=1.0)
            self.in_flight += 1

    def leave(self) -> None:
        """End an admitted call."""
        with self._lock:
            self.in_flight -= 1
            idle = None if self.in_flight else self._when_idle
        if idle is not None:
            idle()

    def hold(self) -> None:
        """Hold every reply until `release`."""
        with self._lock:
            self._held = []

    def release(self) -> None:
        """Send what was held, and hold no more."""
        with self._lock:
            held, self._held = self._held or [], None
        for send in held:
            send()

    def pass_out(self, send: Callable[[], None]) -> None:
        """Send a reply, now or at the release."""
        with self._lock:
            if self._held is not None:
                self._held.append(send)
                return
        send()

    @property
    def holds(self) -> bool:
        """Whether replies are held; without the lock, for those who can be late by a moment."""
        return self._held is not None

    def close(self, when_idle: Callable[[], None]) -> None:
        """Refuse new calls; `when_idle` is called, from any thread, when the last has ended."""
        with self._lock:
            self._when_idle = when_idle
            idle = not self.in_flight
        if idle:
            when_idle()
