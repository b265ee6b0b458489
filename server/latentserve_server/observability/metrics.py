"""Every metric that one server process has.

Labels are bounded: models and versions by what is served, methods and operations by the
contract, codes and reasons by the code. What a caller sends never makes a series.

What every call touches are the plain numbers of `tallies`; a collector gives them to
prometheus_client at a scrape. Its own counters take a lock for every value, and there are
several to a call.
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
from latentserve_server.observability.rpc_metrics import RpcMetrics, cancellation_code, collect_rpcs
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.repository.model_version import ModelVersion, State

__all__ = ["Metrics", "RpcMetrics", "cancellation_code"]

_MODEL = ("model", "version")


class Metrics(Collector):
    """The metrics of one server.

    Args:
        entries: gives the versions that there are, at the time of a scrape.
    """

    def __init__(self, entries: Callable[[], Iterable[ModelVersion]]) -> None:
        self._entries = entries
        self._rpcs: dict[str, RpcMetrics] = {}
        # Each is added or taken out in one step; a scrape reads a copy.
        self._versions: dict[tuple[str, str], ModelMetrics] = {}
        self._reloads = LabelledCounter()
        self._failed_reloads = Counter()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        prometheus_client.ProcessCollector(registry=self.registry)

    def rpc(self, method: str, *, streaming: bool) -> RpcMetrics:
        """Return what counts the calls of a method, /SERVICE/METHOD, from now on 0 of them."""
        return self._rpcs.setdefault(method, RpcMetrics(method, streaming=streaming))

    def callbacks(self, name: str, version: int) -> BatcherCallbacks:
        """Return what a batcher of that version tells; its successor goes on counting there."""
        return self._versions.setdefault((name, str(version)), ModelMetrics())

    def reloaded(self, outcome: Outcome) -> None:
        """Count what a reload did, and drop the series of a version that is served no more.

        Calls that still run on it count no more then: they would bring its series back.
        """
        self._reloads.add(outcome.action.value)
        if outcome.action is Action.REMOVED:
            self._versions.pop((outcome.name, str(outcome.version)), None)

    def reload_failed(self) -> None:
        """Count a reload that could not look at the model folder."""
        self._failed_reloads.add()

    def describe(self) -> Iterable[Metric]:
        """Give the names, for those who ask for a few: /metrics?name[]=NAME."""
        return _families((), (), {}, 0, ())

    def collect(self) -> Iterator[Metric]:
        """Give everything; called for every scrape."""
        return _families(
            list(self._rpcs.values()),
            list(self._versions.items()),
            self._reloads.read(),
            self._failed_reloads.read(),
            self._entries(),
        )


def _families(
    rpcs: Iterable[RpcMetrics],
    versions: Iterable[tuple[tuple[str, str], ModelMetrics]],
    reload_counts: Mapping[tuple[str, ...], int],
    failed_reloads: int,
    entries: Iterable[ModelVersion],
) -> Iterator[Metric]:
    yield from collect_rpcs(rpcs)
    yield from collect_versions(versions)
    reloads = CounterMetricFamily(
        "latentserve_reload_outcomes",
        "Versions looked at in reloads, by what became of them.",
        labels=("action",),
    )
    for labels, count in reload_counts.items():
        reloads.add_metric(labels, count)
    yield reloads
    yield CounterMetricFamily(
        "latentserve_reload_failures",
        "Reloads that found no model folder, or an empty one, and changed nothing.",
        failed_reloads,
    )
    yield from _collect_models(entries)
    yield _build_info()


def _collect_models(entries: Iterable[ModelVersion]) -> Iterator[Metric]:
    """Give what is true now: versions, their state, their queues."""
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
        "latentserve_queue_rows",
        "Rows that wait for the engine.",
        labels=(*_MODEL, "operation"),
    )
    stalled = GaugeMetricFamily(
        "latentserve_stalled_seconds",
        "Time since a batch finished while there is work, 0 for an idle engine.",
        labels=_MODEL,
    )
    for entry in entries:
        labels = (entry.name, str(entry.version))
        for possible in State:
            state.add_metric((*labels, possible.value), float(entry.state is possible))
        if entry.model is not None:
            manifest = entry.model.manifest
            info.add_metric((*labels, manifest.kind, entry.model.provider, manifest.digest), 1.0)
            rows = entry.model.batcher.waiting_by_operation()
            for operation in manifest.operations:
                waiting.add_metric((*labels, operation), float(rows.get(operation, 0)))
            backlog = entry.model.batcher.backlog()
            stalled.add_metric(labels, backlog.stalled_s if backlog else 0.0)
    yield from (info, state, waiting, stalled)


def _build_info() -> Metric:
    info = GaugeMetricFamily(
        "latentserve_build_info",
        "1, with the versions of the server and of what it stands on.",
        labels=("version", "python", "grpcio", "onnxruntime"),
    )
    onnxruntime = _installed("onnxruntime") or _installed("onnxruntime-gpu")
    labels = (__version__, platform.python_version(), _installed("grpcio"), onnxruntime)
    info.add_metric(labels, 1.0)
    return info


@functools.cache
def _installed(distribution: str) -> str:
    """Return the version of an installed distribution, "" for none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
