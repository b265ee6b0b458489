"""Prometheus metrics of the supervisor itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from latentserve_server.exit_status import STUCK


class WorkerMetrics:
    """Number of workers by state, and their restarts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._workers = Gauge(
            "latentserve_workers",
            "Workers by state: serving, starting, or down until the next start.",
            ("state",),
            registry=registry,
        )
        self._restarts = Counter(
            "latentserve_worker_restarts",
            "Unexpected exits of workers, by cause: exit, signal or stuck.",
            ("worker", "cause"),
            registry=registry,
        )

    def update(self, **states: int) -> None:
        """Set the number of workers in each state."""
        for state, count in states.items():
            self._workers.labels(state).set(count)

    def restarted(self, number: int, status: int | None) -> None:
        """Count an exit by its status in the convention of `subprocess`; None: it did not start."""
        if status == STUCK:
            cause = "stuck"
        else:
            cause = "signal" if status is not None and status < 0 else "exit"
        self._restarts.labels(str(number), cause).inc()
