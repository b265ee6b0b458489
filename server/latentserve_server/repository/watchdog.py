"""Notices an engine that does nothing while work waits for it.

A graph that hangs, a driver that no longer answers: the port is open, every check of the process
is well, and no caller gets an answer. Only the queue knows.
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
    """Looks at the queues of all versions that are served.

    Args:
        entries: gives the versions that there are.
        limit_s: seconds without a finished batch, while there is work, that count as stuck.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[ModelVersion]],
        *,
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._limit_s = limit_s
        self._clock = clock
        self._looked_at = clock()
        self._awake_since: float | None = None
        self._stuck: dict[tuple[str, int], Backlog] = {}

    @property
    def interval_s(self) -> float:
        """How often to look."""
        return min(max(self._limit_s / 4, 0.05), 1.0)

    def is_stuck(self, name: str | None = None) -> bool:
        """Return whether a model is stuck in any version; without a name, whether any is."""
        return any(name in (None, stuck) for stuck, _ in self._stuck)

    def check(self) -> set[str]:
        """Return the names of the models where something got stuck, or goes on again."""
        awake_s = self._awake_s()
        found: dict[tuple[str, int], Backlog] = {}
        for entry in self._entries():
            backlog = entry.model.batcher.backlog() if entry.model else None
            if backlog is None or backlog.stalled_s < self._limit_s:
                continue
            key = entry.name, entry.version
            if awake_s >= self._limit_s or key in self._stuck:
                found[key] = backlog
        before, self._stuck = self._stuck, found
        for key in found.keys() - before.keys():
            _tell_stuck(*key, found[key])
        for name, version in before.keys() - found.keys():
            log.warning("%s version %d is no longer stuck", name, version)
        return {name for name, _ in found.keys() ^ before.keys()}

    def _awake_s(self) -> float:
        """Return for how long this process has been running without a pause.

        A process that is stopped, or whose container is paused, finishes no batch either. It
        shows by this look coming far too late, and the engines are given the limit anew.
        """
        now = self._clock()
        late_s = now - self._looked_at
        self._looked_at = now
        if late_s > max(self._limit_s / 2, 2 * self.interval_s):
            self._awake_since = now
        return math.inf if self._awake_since is None else now - self._awake_since


def _tell_stuck(name: str, version: int, backlog: Backlog) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - backlog.stalled_s))
    log.error(
        "%s version %d is stuck: nothing has finished for %.1f s, since %s; "
        "%s of %d rows is running, %d rows wait. Health is NOT_SERVING",
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
