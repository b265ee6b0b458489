"""Message types between the supervisor and its workers, sent over `ipc.IpcChannel`."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.core import Metric

RELOAD_TIMEOUT_S = 600.0
"""Timeout of a reload by all workers."""


@dataclass(frozen=True)
class Stop:
    """To a worker: drain and exit; when sent a second time, exit at once."""


@dataclass(frozen=True)
class ReportMetrics:
    """Request to a worker; the reply is a list of Metric."""


@dataclass(frozen=True)
class Ping:
    """Request to a worker; any reply shows that it is responsive."""


@dataclass(frozen=True)
class ReportState:
    """Request to a worker; the reply is a ProcessState."""


@dataclass(frozen=True)
class Reload:
    """Request to a worker, or from a worker for all workers; the reply is a list of Outcome."""

    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Serving:
    """From a worker: its models are warmed up and its port is open."""


@dataclass(frozen=True)
class CannotStart:
    """From a worker: it exits because of its settings or models; `reason` is the error text."""

    reason: str


@dataclass(frozen=True)
class LastReport:
    """From a worker before it exits: its final metrics, and whether it cut off calls."""

    metrics: list[Metric]
    cut_off: bool
