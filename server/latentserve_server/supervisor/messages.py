"""What the supervisor and its workers say to each other; `channel` carries it."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.core import Metric

RELOAD_LIMIT_S = 600.0
"""So long may a reload take."""


@dataclass(frozen=True)
class Stop:
    """To a worker: drain and end. The second one: at once."""


@dataclass(frozen=True)
class ReportMetrics:
    """To a worker, a question; the answer is a list of Metric."""


@dataclass(frozen=True)
class Ping:
    """To a worker, a question; any answer will do."""


@dataclass(frozen=True)
class Reload:
    """To a worker, and by a worker for all of them: a question; the answer is the outcomes."""

    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Serving:
    """From a worker: its models are warm and its port is open."""


@dataclass(frozen=True)
class CannotStart:
    """From a worker: it ends, because it cannot run as asked."""

    reason: str


@dataclass(frozen=True)
class LastReport:
    """From a worker, as its last word: its metrics, and whether it left calls unanswered."""

    metrics: list[Metric]
    cut_off: bool
