"""Watchdog that detects stuck engines: work is queued, but no batch finishes.

If a graph or a driver hangs, the port is still open and checks of the process succeed, but no call
completes. Only the state of the queue shows it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

from latentserve_server.batching.batcher import Backlog
from latentserve_server.repository.model_version import ModelVersion

log = logging.getLogger(__name__)


class Watchdog:
    """Checks the queues of all served versions.

    Args:
        versions: returns all versions.
        limit_s: an engine with work is stuck after so many seconds without a finished batch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        versions: Callable[[], Iterable[ModelVersion]],
        *,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._versions = versions
        self._limit_s = limit_s
        self._clock = clock
        self._checked_at = clock()
        self._awake_since: float | None = None
        self._stuck: dict[tuple[str, int], Backlog] = {}

    @property
    def interval_s(self) -> float:
        """The interval between checks, in seconds."""
        return min(max(self._limit_s / 4, 0.05), 1.0)

    def is_stuck(self, name: str | None = None) -> bool:
        """Return whether any version of a model is stuck; without a name, of any model."""
        return any(name in (None, stuck) for stuck, _ in self._stuck)

    def check(self) -> set[str]:
        """Return the names of the models with a version that became stuck or recovered."""
        awake_s = self._awake_s()
        found: dict[tuple[str, int], Backlog] = {}
        for model_version in self._versions():
            backlog = model_version.model.batcher.backlog() if model_version.model else None
            if backlog is None or backlog.stalled_s < self._limit_s:
                continue
            key = model_version.name, model_version.version
            if awake_s >= self._limit_s or key in self._stuck:
                found[key] = backlog
        before, self._stuck = self._stuck, found
        for key in found.keys() - before.keys():
            _log_stuck(*key, found[key])
        for name, version in before.keys() - found.keys():
            log.warning("%s version %d is no longer stuck", name, version)
        return {name for name, _ in found.keys() ^ before.keys()}

    def _awake_s(self) -> float:
        """Return the seconds since the process was last paused.

        A stopped process or a paused container finishes no batch either. A pause shows as a check
        that is far too late; after it, the engines get the full limit again.
        """
        now = self._clock()
        late_s = now - self._checked_at
        self._checked_at = now
        if late_s > max(self._limit_s / 2, 2 * self.interval_s):
            self._awake_since = now
        return math.inf if self._awake_since is None else now - self._awake_since


def _log_stuck(name: str, version: int, backlog: Backlog) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - backlog.stalled_s))
    log.error(
        "%s version %d is stuck: no batch has finished for %.1f s, since %s; "
        "%s of %d rows is running, %d rows are queued. Health is NOT_SERVING",
        name,
        version,
        backlog.stalled_s,
        since,
        backlog.operation,
        backlog.running_rows,
        backlog.waiting_rows,
        extra={
            "model": f"{name}:{version}",
            "operation": backlog.operation,
            "running_rows": backlog.running_rows,
            "waiting_rows": backlog.waiting_rows,
            "since": since,
        },
    )
