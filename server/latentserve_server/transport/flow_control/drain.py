"""Thread-safe counter of calls in flight, which refuses new calls during a drain."""

from __future__ import annotations

import threading
from collections.abc import Callable

from latentserve_server.errors import Unavailable


class DrainGate:
    """Counts calls in flight, refuses new calls during a drain, and can hold replies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_idle: Callable[[], None] | None = None
        self._held: list[Callable[[], None]] | None = None
        self.in_flight = 0

    def enter(self) -> None:
        """Admit a call. Raises Unavailable during a drain."""
        with self._lock:
            if self._on_idle is not None:
                raise Unavailable(
                    "the server is shutting down; try another server", retry_after_s=1.0
                )
            self.in_flight += 1

    def leave(self) -> None:
        """End an admitted call."""
        with self._lock:
            self.in_flight -= 1
            on_idle = None if self.in_flight else self._on_idle
        if on_idle is not None:
            on_idle()

    def hold(self) -> None:
        """Hold every reply until `release`."""
        with self._lock:
            self._held = []

    def release(self) -> None:
        """Send the held replies, and stop holding replies."""
        with self._lock:
            held, self._held = self._held or [], None
        for send in held:
            send()

    def send_or_hold(self, send: Callable[[], None]) -> None:
        """Call `send` now, or at the release if replies are held."""
        with self._lock:
            if self._held is not None:
                self._held.append(send)
                return
        send()

    @property
    def is_holding(self) -> bool:
        """Whether replies are held. Read without the lock, so the value may be slightly old."""
        return self._held is not None

    def close(self, on_idle: Callable[[], None]) -> None:
        """Refuse new calls, and call `on_idle`, from any thread, when no call is in flight."""
        with self._lock:
            self._on_idle = on_idle
            idle = not self.in_flight
        if idle:
            on_idle()
