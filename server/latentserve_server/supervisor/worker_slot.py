"""The place of one worker, over all its lives."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from latentserve_server.supervisor.restart_policy import RestartPolicy
from latentserve_server.supervisor.worker_process import WorkerProcess

log = logging.getLogger(__name__)


@dataclass
class WorkerSlot:
    """What the supervisor knows of the worker of a number."""

    number: int
    restarts: RestartPolicy
    process: WorkerProcess | None = None
    serving_since: float | None = None
    start_at: float | None = 0.0
    asked_at: float | None = None  # when a sign of life was asked for that is still to come
    alive: Future[Any] | None = None
    reason: str = ""  # why it cannot start, as it said itself

    def listen_for_life(self, now: float, silence_s: float, *, anew: bool) -> None:
        """Kill a worker that answers nothing: its own watchdog may hang with the rest of it.

        `anew` gives it the whole `silence_s` from now on: it was not silent, but the supervisor
        did not run, and perhaps nobody did.
        """
        if self.process is None or self.serving_since is None:
            return
        if self.alive is None or self.alive.done():
            self.alive, self.asked_at = self.process.ask_alive(), now
        elif anew and self.asked_at is not None:
            self.asked_at = now
        elif self.asked_at is not None and now - self.asked_at >= silence_s:
            log.error(
                "worker %d (process %d) has not answered for %.1f s and is killed",
                self.number,
                self.process.pid,
                now - self.asked_at,
            )
            self.asked_at = None  # once is enough
            self.process.kill()
