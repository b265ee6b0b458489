"""Every metric that the server has.

Labels are bounded: models and versions by what is served, methods and operations by the
contract, reasons by the code. The names of the gRPC metrics are those of the go-grpc and
java-grpc Prometheus interceptors, so that common dashboards fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from latentserve_server.entry import Entry, State
from latentserve_server.observer import DROPPED, REFUSED, Observer
from latentserve_server.repository import Action, Outcome

# From 100 microseconds, a small model on an idle server, to ten seconds.
_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_DEADLINE_MARGIN_S = 0.02
_MODEL = ("model", "version")
_OPERATION = (*_MODEL, "operation")
_METHOD = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """The metrics of one server.

    Args:
        entries: gives the versions that there are, at the time of a scrape.
    """

    def __init__(self, entries: Callable[[], Iterable[Entry]]) -> None:
        self.registry = CollectorRegistry()
        self.started = Counter(
            "grpc_server_started", "Calls that began.", _METHOD, registry=self.registry
        )
        self.handled = Counter(
            "grpc_server_handled",
            "Calls that ended, by status code.",
            (*_METHOD, "grpc_code"),
            registry=self.registry,
        )
        self.handling = Histogram(
            "grpc_server_handling_seconds",
            "Time from the request to the end of the reply.",
            _METHOD,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "latentserve_queue_seconds",
            "Time that a request waited for its first batch.",
            _OPERATION,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.engine_seconds = Histogram(
            "latentserve_engine_seconds",
            "Time of one batch in ONNX Runtime, the copy into its buffer included.",
            _OPERATION,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "latentserve_batch_rows",
            "Rows of one batch.",
            _OPERATION,
            buckets=_ROWS,
            registry=self.registry,
        )
        self.refused = Counter(
            "latentserve_rejected",
            f"Requests that were not admitted, by reason: {_list(REFUSED)}.",
            (*_MODEL, "reason"),
            registry=self.registry,
        )
        self.dropped = Counter(
            "latentserve_dropped",
            f"Requests that ended before their answer, by reason: {_list(DROPPED)}.",
            (*_OPERATION, "reason"),
            registry=self.registry,
        )
        self.failed = Counter(
            "latentserve_engine_failures",
            "Requests that the engine failed for.",
            _OPERATION,
            registry=self.registry,
        )
        self.halved = Counter(
            "latentserve_halved_batches",
            "Batches that the device had no memory for, and that were run in two halves.",
            _OPERATION,
            registry=self.registry,
        )
        self.reloads = Counter(
            "latentserve_reload_outcomes",
            "Versions looked at in reloads, by what became of them.",
            ("action",),
            registry=self.registry,
        )
        self.registry.register(_Models(entries))
        prometheus_client.ProcessCollector(registry=self.registry)

    def observer(self, name: str, version: int) -> Observer:
        """Return what a batcher of that version tells."""
        return _BatcherMetrics(self, name, str(version))

    def reloaded(self, outcome: Outcome) -> None:
        """Count what a reload did, and drop the series of a version that is served no more."""
        self.reloads.labels(outcome.action.value).inc()
        if outcome.action is Action.REMOVED:
            self._forget(outcome.name, outcome.version)

    def _forget(self, name: str, version: int) -> None:
        labels = {"model": name, "version": str(version)}
        for metric in (
            self.queue_seconds,
            self.engine_seconds,
            self.batch_rows,
            self.refused,
            self.dropped,
            self.failed,
            self.halved,
        ):
            metric.remove_by_labels(labels)


class RpcMetrics:
    """The metrics of one method; its labels are looked up once."""

    def __init__(self, metrics: Metrics, method: str, *, streaming: bool) -> None:
        _, service, name = method.split("/")
        labels = ("server_stream" if streaming else "unary", service, name)
        self._labels = labels
        self._handled = metrics.handled
        self._started = metrics.started.labels(*labels)
        self._handling = metrics.handling.labels(*labels)

    def begin(self) -> None:
        """Count a call that began."""
        self._started.inc()

    def end(self, code_name: str, seconds: float) -> None:
        """Count a call that ended with a status code, such as OK."""
        self._handled.labels(*self._labels, code_name).inc()
        self._handling.observe(seconds)


def _list(reasons: Sequence[str]) -> str:
    return f"{', '.join(reasons[:-1])} or {reasons[-1]}"


def code_of_leaving(remaining_s: float | None) -> str:
    """Return the status code of a call that the transport cancelled.

    `remaining_s` is what its deadline still had to run, None without one. A caller whose
    deadline passes resets the call, and that may arrive a moment before our own clock agrees.
    """
    if remaining_s is not None and remaining_s <= _DEADLINE_MARGIN_S:
        return "DEADLINE_EXCEEDED"
    return "CANCELLED"


class _BatcherMetrics(Observer):
    """Counts what happens in the batcher of one version."""

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (name, version)
        self._by_operation: dict[str, tuple[Histogram, Histogram, Histogram]] = {}

    def waited(self, operation: str, seconds: float) -> None:
        self._children(operation)[0].observe(seconds)

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        _, engine_seconds, batch_rows = self._children(operation)
        engine_seconds.observe(seconds)
        batch_rows.observe(rows)

    def halved(self, operation: str) -> None:
        self._metrics.halved.labels(*self._labels, operation).inc()

    def failed(self, operation: str) -> None:
        self._metrics.failed.labels(*self._labels, operation).inc()

    def refused(self, operation: str, reason: str) -> None:
        self._metrics.refused.labels(*self._labels, reason).inc()

    def dropped(self, operation: str, reason: str) -> None:
        self._metrics.dropped.labels(*self._labels, operation, reason).inc()

    def _children(self, operation: str) -> tuple[Histogram, Histogram, Histogram]:
        """Look the labels of an operation up once: this is on the way of every request."""
        found = self._by_operation.get(operation)
        if found is None:
            labels = (*self._labels, operation)
            found = self._by_operation[operation] = (
                self._metrics.queue_seconds.labels(*labels),
                self._metrics.engine_seconds.labels(*labels),
                self._metrics.batch_rows.labels(*labels),
            )
        return found


class _Models(Collector):
    """What is true at the time of a scrape: versions, their state, their queues."""

    def __init__(self, entries: Callable[[], Iterable[Entry]]) -> None:
        self._entries = entries

    def collect(self) -> Iterator[Metric]:
        """Give the gauges; called for every scrape."""
        info = GaugeMetricFamily(
            "latentserve_model_info",
            "1 for every version that is served.",
            labels=(*_MODEL, "kind", "provider", "digest"),
        )
        state = GaugeMetricFamily(
            "latentserve_model_state",
            "1 for the state that a version is in, 0 for the others.",
            labels=(*_MODEL, "state"),
        )
        waiting = GaugeMetricFamily(
            "latentserve_queue_rows", "Rows that wait for the engine.", labels=_MODEL
        )
        stalled = GaugeMetricFamily(
            "latentserve_stalled_seconds",
            "Time since a batch finished while there is work, 0 for an idle engine.",
            labels=_MODEL,
        )
        for entry in self._entries():
            labels = (entry.name, str(entry.version))
            for possible in State:
                state.add_metric((*labels, possible.value), float(entry.state is possible))
            if entry.model is not None:
                manifest = entry.model.manifest
                info.add_metric(
                    (*labels, manifest.kind, entry.model.provider, manifest.digest), 1.0
                )
                waiting.add_metric(labels, float(entry.model.batcher.waiting_rows))
                backlog = entry.model.batcher.backlog()
                stalled.add_metric(labels, backlog.stalled_s if backlog else 0.0)
        yield from (info, state, waiting, stalled)
