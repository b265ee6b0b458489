"""Limit of log lines per second, for lines that clients cause.

A client without a token can cause thousands of failed calls per second, and a full disk of log
lines per day. Of each kind the first lines of a second are written, and then their number.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

LINES_PER_PERIOD = 10
PERIOD_S = 1.0

LIMITED_LOGGERS = (
    *("latentserve_server.batching.batcher", "latentserve_server.batching.executor"),
    "latentserve_server.observability.metrics_server",
    "latentserve_server.observability.opentelemetry",
    "latentserve_server.transport.completion_queue.acceptor",
    "latentserve_server.transport.completion_queue.calls",
    "latentserve_server.transport.completion_queue.poller",
    "latentserve_server.transport.security",
    *("grpc._cython.cygrpc", "grpc._server", "grpc.aio._server"),
)
"""Loggers of lines that a call, a connection or a batch can cause."""

# Kinds are texts of our code; more of them would mean that a text contains data of a client.
_MAX_KINDS = 1000


@dataclass
class _Period:
    """Lines of one kind since `start` (monotonic seconds)."""

    start: float
    level: int
    lines: int = 0
    withheld: int = 0


class LineLimit:
    """Counts lines by kind. Thread-safe; a line costs a microsecond.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._periods: dict[str, _Period] = {}

    def admit(self, kind: str, level: int) -> bool:
        """Return whether a line of this kind may be written; otherwise count it."""
        now = self._clock()
        with self._lock:
            period = self._periods.get(kind)
            if period is None:
                if len(self._periods) >= _MAX_KINDS:
                    return False
                period = self._periods[kind] = _Period(now, level)
            elif now - period.start >= PERIOD_S * (2 if period.withheld else 1):
                # Without a report for a second period, lines are written again.
                period.start, period.lines = now, 0
            if period.lines < LINES_PER_PERIOD:
                period.lines += 1
                return True
            period.withheld += 1
            return False

    def report(self, *, final: bool = False) -> None:
        """Write the number of withheld lines of every kind whose period has ended.

        `final` also ends periods that have not passed.
        """
        now = self._clock()
        with self._lock:
            ended = {
                kind: period
                for kind, period in self._periods.items()
                if final or now - period.start >= PERIOD_S
            }
            for kind in ended:
                del self._periods[kind]
        for kind, period in ended.items():
            if period.withheld:
                log.log(
                    period.level,
                    "%s: %d more lines in %.1f s were not written",
                    *(kind, period.withheld, now - period.start),
                    extra={"kind": kind, "withheld": period.withheld},
                )

    async def report_regularly(self) -> None:
        """Report once per period, until the task is cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self.report()


LIMIT = LineLimit()
"""The limit of this process."""


def limit_flood(record: logging.LogRecord) -> bool:
    """Log filter of `LIMITED_LOGGERS`: apply `LIMIT` to records with the same text."""
    return LIMIT.admit(f"{record.name}: {record.msg}", record.levelno)
