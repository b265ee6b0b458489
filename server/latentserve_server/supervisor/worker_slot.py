"""State of one worker number across restarts of its process."""

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
    """The supervisor's state of one worker, across its processes."""

    number: int
    restarts: RestartPolicy
    process: WorkerProcess | None = None
    serving_since: float | None = None
    start_at: float | None = 0.0
    pinged_at: float | None = None  # time of the ping that has no reply yet
    ping: Future[Any] | None = None
    reason: str = ""  # text of its CannotStart message

    def check_liveness(self, now: float, ping_timeout_s: float, *, reset: bool) -> None:
        """Kill a worker that does not reply to pings: its own watchdog may hang as well.

        `reset` restarts `ping_timeout_s`, for use after a pause of the supervisor itself, in which
        the worker may have been paused as well.
        """
        if self.process is None or self.serving_since is None:
            return
        if self.ping is None or self.ping.done():
            self.ping, self.pinged_at = self.process.ping(), now
        elif reset and self.pinged_at is not None:
            self.pinged_at = now
        elif self.pinged_at is not None and now - self.pinged_at >= ping_timeout_s:
            log.error(
                "worker %d (process %d) has not replied for %.1f s and is killed",
                self.number,
                self.process.pid,
                now - self.pinged_at,
            )
            self.pinged_at = None  # kill it only once
            self.process.kill()
