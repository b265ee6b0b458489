"""Monitor that detects threads without a sign of life, on a separate thread.

A thread that hangs or loops for ever leaves the port open, but calls never end. The watchdog of the
engines (`repository.watchdog`) runs on the event loop and cannot report that the loop itself hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from latentserve_server import exit_status
from latentserve_server.errors import EngineStuck

log = logging.getLogger(__name__)

OnSilent = Callable[[str, float], None]
"""Called with the name of a thread and the seconds since its last sign of life."""

_STOP_TIMEOUT_S = 1.0


class LivenessMonitor:
    """Watches counters that change several times a second as long as their threads are alive.

    Args:
        signs: returns the counter of each thread by its name; None if the thread has ended.
        limit_s: a thread is silent after so many seconds without a change of its counter.
        on_silent: called once for each silence.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        signs: Mapping[str, Callable[[], int | None]],
        *,
        limit_s: float,
        on_silent: OnSilent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._signs = signs
        self._limit_s = limit_s
        self._on_silent = on_silent
        self._clock = clock
        self._interval_s = min(max(limit_s / 4, 0.05), 1.0)
        self._checked_at = clock()
        self._seen: dict[str, tuple[int | None, float]] = {}
        self._silent: set[str] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to check on a separate thread."""
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop checking, and wait for the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)

    def check(self) -> None:
        """Compare every counter with its last value."""
        now = self._clock()
        late_s, self._checked_at = now - self._checked_at, now
        # A paused process shows no sign of life either; afterwards all get the full limit.
        paused = late_s > max(self._limit_s / 2, 2 * self._interval_s)
        for name, sign in self._signs.items():
            value = sign()
            seen, since = self._seen.get(name, (None, now))
            if value is None or value != seen or paused:
                self._seen[name] = value, now
                if name in self._silent:
                    self._silent.discard(name)
                    log.warning("the %s shows signs of life again", name)
            elif now - since >= self._limit_s and name not in self._silent:
                self._silent.add(name)
                self._on_silent(name, now - since)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.check()


def watch_process(
    polling_turns: Callable[[], int | None], *, limit_s: float, exit_if_silent: bool
) -> LivenessMonitor:
    """Return a monitor of the running event loop and of the polling thread, not started.

    A silent thread is logged. The process can neither drain nor report NOT_SERVING then, because
    that thread would do it; with `exit_if_silent` it ends at once.
    """
    loop = asyncio.get_running_loop()
    beats = 0

    def count_beat() -> None:
        nonlocal beats
        beats += 1

    def beat() -> int:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(count_beat)
        return beats

    def on_silent(name: str, silent_s: float) -> None:
        log.error("the %s has shown no sign of life for %.1f s", name, silent_s)
        if exit_if_silent:
            exit_status.end_stuck(EngineStuck(f"--watchdog-exit: the {name} is stuck"))

    signs = {"event loop": beat, "polling thread": polling_turns}
    return LivenessMonitor(signs, limit_s=limit_s, on_silent=on_silent)
