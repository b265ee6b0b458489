"""Prometheus collector of all metrics of one server process.

Labels are bounded: models and versions by the model folder, methods and operations by the API,
codes and reasons by constants. No value from a request becomes a label.

Calls update `deferred_counters`, which the collector converts for prometheus_client at a scrape.
The counters of prometheus_client take a lock for every value, and each call updates several.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from latentserve_server import __version__
from latentserve_server.batching.batcher import BatcherCallbacks
from latentserve_server.observability.deferred_counters import Counter, LabelledCounter
from latentserve_server.observability.model_metrics import ModelMetrics, collect_versions
from latentserve_server.observability.reply_metrics import collect_decoding, collect_replies
from latentserve_server.observability.rpc_metrics import RpcMetrics, cancellation_code, collect_rpcs
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.repository.model_version import ModelVersion, State

__all__ = ["Metrics", "RpcMetrics", "cancellation_code"]

_MODEL = ("model", "version")


class Metrics(Collector):
    """The metrics of one server.

    Args:
        versions: returns the current model versions, at the time of a scrape.
    """

    def __init__(self, versions: Callable[[], Iterable[ModelVersion]]) -> None:
        self._versions = versions
        self._rpc_metrics: dict[str, RpcMetrics] = {}
        # Insertions and removals are atomic; a scrape reads a copy.
        self._model_metrics: dict[tuple[str, str], ModelMetrics] = {}
        self._reloads = LabelledCounter()
        self._failed_reloads = Counter()
        self._unread_refusals = LabelledCounter()
        self._overdue_calls = LabelledCounter()
        self._decoding_refusals = LabelledCounter()
        self.decoding_bytes: Callable[[], int] = lambda: 0
        """Returns the bytes of requests that wait to be decoded; set by the transport."""
        self.unwritten_bytes: Callable[[], int] = lambda: 0
        """Returns the bytes of replies that are built and not written; set by the transport."""
        self.registry = CollectorRegistry()
        self.registry.register(self)
        prometheus_client.ProcessCollector(registry=self.registry)

    def rpc(self, method: str, *, streaming: bool) -> RpcMetrics:
        """Return the metrics of a method, /SERVICE/METHOD; they start at 0."""
        return self._rpc_metrics.setdefault(method, RpcMetrics(method, streaming=streaming))

    def callbacks(self, name: str, version: int) -> BatcherCallbacks:
        """Return the callbacks of a version's batcher; a reloaded version continues the counts."""
        return self._model_metrics.setdefault((name, str(version)), ModelMetrics())

    def reloaded(self, outcome: Outcome) -> None:
        """Count the outcome of a reload, and drop the series of a removed version.

        Calls that are still running on the removed version are no longer counted, because they
        would create its series again.
        """
        self._reloads.add(outcome.action.value)
        if outcome.action is Action.REMOVED:
            self._model_metrics.pop((outcome.name, str(outcome.version)), None)

    def reload_failed(self) -> None:
        """Count a reload that could not read the model folder."""
        self._failed_reloads.add()

    def unread_refused(self, limit: str) -> None:
        """Count a call that was refused because earlier replies are not read."""
        self._unread_refusals.add(limit)

    def decoding_refused(self, reason: str) -> None:
        """Count a request that was refused before it was decoded."""
        self._decoding_refusals.add(reason)

    def overdue_ended(self, reason: str) -> None:
        """Count a call that was ended because it took too long."""
        self._overdue_calls.add(reason)

    def describe(self) -> Iterable[Metric]:
        """Yield families without samples; used for restricted scrapes, /metrics?name[]=NAME."""
        return (
            *_families((), (), {}, 0, ()),
            *collect_replies(0, {}, {}),
            *collect_decoding(0, {}),
        )

    def collect(self) -> Iterator[Metric]:
        """Yield all families with their samples, at every scrape."""
        yield from collect_replies(
            self.unwritten_bytes(), self._unread_refusals.read(), self._overdue_calls.read()
        )
        yield from collect_decoding(self.decoding_bytes(), self._decoding_refusals.read())
        yield from _families(
            list(self._rpc_metrics.values()),
            list(self._model_metrics.items()),
            self._reloads.read(),
            self._failed_reloads.read(),
            self._versions(),
        )


def _families(
    rpcs: Iterable[RpcMetrics],
    model_metrics: Iterable[tuple[tuple[str, str], ModelMetrics]],
    reload_counts: Mapping[tuple[str, ...], int],
    failed_reloads: int,
    versions: Iterable[ModelVersion],
) -> Iterator[Metric]:
    yield from collect_rpcs(rpcs)
    yield from collect_versions(model_metrics)
    reloads = CounterMetricFamily(
        "latentserve_reload_outcomes",
        "Model versions examined by reloads, by action.",
        labels=("action",),
    )
    for labels, count in reload_counts.items():
        reloads.add_metric(labels, count)
    yield reloads
    yield CounterMetricFamily(
        "latentserve_reload_failures",
        "Reloads that changed nothing, because the model folder was missing or empty.",
        failed_reloads,
    )
    yield from _collect_models(versions)
    yield _build_info()


def _collect_models(versions: Iterable[ModelVersion]) -> Iterator[Metric]:
    """Yield the gauges of the current model versions, their states and their queues."""
    info = GaugeMetricFamily(
        "latentserve_model_info",
        "1 for every model version that is served.",
        labels=(*_MODEL, "kind", "provider", "digest"),
    )
    state = GaugeMetricFamily(
        "latentserve_model_state",
        "1 for the current state of a model version, 0 for the others.",
        labels=(*_MODEL, "state"),
    )
    waiting = GaugeMetricFamily(
        "latentserve_queue_rows",
        "Rows in the queue.",
        labels=(*_MODEL, "operation"),
    )
    stalled = GaugeMetricFamily(
        "latentserve_stalled_seconds",
        "Time since the last batch finished while requests are pending, 0 for an idle engine.",
        labels=_MODEL,
    )
    for version in versions:
        labels = (version.name, str(version.version))
        for possible in State:
            state.add_metric((*labels, possible.value), float(version.state is possible))
        if version.model is not None:
            manifest = version.model.manifest
            info.add_metric((*labels, manifest.kind, version.model.provider, manifest.digest), 1.0)
            rows = version.model.batcher.waiting_by_operation()
            for operation in manifest.operations:
                waiting.add_metric((*labels, operation), float(rows.get(operation, 0)))
            backlog = version.model.batcher.backlog()
            stalled.add_metric(labels, backlog.stalled_s if backlog else 0.0)
    yield from (info, state, waiting, stalled)


def _build_info() -> Metric:
    info = GaugeMetricFamily(
        "latentserve_build_info",
        "1, with the versions of the server and of its dependencies as labels.",
        labels=("version", "python", "grpcio", "onnxruntime"),
    )
    onnxruntime = _installed("onnxruntime") or _installed("onnxruntime-gpu")
    labels = (__version__, platform.python_version(), _installed("grpcio"), onnxruntime)
    info.add_metric(labels, 1.0)
    return info


@functools.cache
def _installed(distribution: str) -> str:
    """Return the version of an installed distribution, "" if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
