"""Prometheus collector that aggregates the metrics of all workers.

The multiprocess mode of prometheus_client uses shared files, but supports neither the removal of
series nor custom collectors, and this server needs both. Instead, the supervisor requests the
metrics of its workers at every scrape and merges them:

* Counters and histograms are summed, including those of workers that have exited, so that no sum
  decreases. If a worker is killed, its counts since its last report are lost.
* Gauges are summed if they are in `SUMMED`; of the others, the largest value is used.
* `process_*` metrics get a label `worker`, which is 0 for the supervisor.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SUMMED = frozenset(
    {"latentserve_queue_rows", "latentserve_unwritten_reply_bytes", "latentserve_decoding_bytes"}
)
"""Gauges that are summed over the workers."""

REPORT_INTERVAL_S = 5.0
_REPORT_TIMEOUT_S = 2.0
_SUPERVISOR = 0
_CUMULATIVE = ("counter", "histogram")
_PROCESS = "process_"

Key = tuple[str, tuple[tuple[str, str], ...]]


class Reporter(Protocol):
    """A worker that reports its metrics on request."""

    number: int

    def request_report(self) -> Future[Any]:
        """Request a report; the future returns a list of Metric, or raises."""

    @property
    def last_report(self) -> Sequence[Metric]:
        """The last metrics that the worker reported."""


class AggregatedCollector(Collector):
    """Collector of the aggregated metrics of running and exited workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[Reporter] = []
        self._ended: list[Metric] = []
        self._process = ProcessCollector(registry=None)
        self._closed = threading.Event()

    def add(self, worker: Reporter) -> None:
        """Include a worker that was started."""
        with self._lock:
            self._live.append(worker)

    def retire(self, worker: Reporter) -> None:
        """Remove a worker that has exited; its counters and histograms remain in the sums."""
        with self._lock:
            self._live.remove(worker)
            counted = [metric for metric in worker.last_report if _is_cumulative(metric)]
            self._ended = merge({0: self._ended, 1: counted})

    def collect(self) -> Iterator[Metric]:
        """Request the metrics of every worker and yield the merged families, at every scrape."""
        with self._lock:
            live, ended = list(self._live), self._ended
        reports = _reports(live)
        reports[_SUPERVISOR] = list(self._process.collect())
        kept = without_removed_versions(ended, reports.values())
        with self._lock:
            if self._ended is ended:  # otherwise a worker has exited in the meantime
                self._ended = kept
        yield from merge({**reports, -1: kept})

    def poll(self) -> None:
        """Request reports every `REPORT_INTERVAL_S` until `close`, so that a crash loses little."""
        while not self._closed.wait(REPORT_INTERVAL_S):
            with self._lock:
                live = list(self._live)
            _reports(live)

    def close(self) -> None:
        """Stop `poll`."""
        self._closed.set()


def _reports(workers: Sequence[Reporter]) -> dict[int, Sequence[Metric]]:
    """Return reports by worker number; a worker without a reply in time counts as it last did."""
    pending = {worker: worker.request_report() for worker in workers}
    replied = wait(pending.values(), _REPORT_TIMEOUT_S).done
    return {
        worker.number: future.result()
        if future in replied and future.exception() is None
        else worker.last_report
        for worker, future in pending.items()
    }


def merge(reports: Mapping[int, Iterable[Metric]]) -> list[Metric]:
    """Return one metric family per name, merged from the reports by worker number."""
    families: dict[str, Metric] = {}
    samples: dict[str, dict[Key, Sample]] = {}
    for number, report in reports.items():
        for metric in report:
            if metric.name not in families:
                families[metric.name] = Metric(metric.name, metric.documentation, metric.type)
            joined = samples.setdefault(metric.name, {})
            for sample in metric.samples:
                if metric.name.startswith(_PROCESS):
                    labels = {**sample.labels, "worker": str(number)}
                    sample = sample._replace(labels=labels)
                key = (sample.name, tuple(sorted(sample.labels.items())))
                before = joined.get(key)
                joined[key] = sample if before is None else _join(metric, before, sample)
    for name, family in families.items():
        family.samples = list(samples[name].values())
    return list(families.values())


def without_removed_versions(
    ended: Iterable[Metric], live: Iterable[Iterable[Metric]]
) -> list[Metric]:
    """Return the metrics of exited workers without versions that no live worker reports."""
    known = {
        (sample.labels["model"], sample.labels["version"])
        for report in live
        for metric in report
        if metric.name == "latentserve_model_state"
        for sample in metric.samples
    }
    kept = []
    for metric in ended:
        copy = Metric(metric.name, metric.documentation, metric.type)
        copy.samples = [
            sample
            for sample in metric.samples
            if not known
            or "model" not in sample.labels
            or (sample.labels["model"], sample.labels["version"]) in known
        ]
        kept.append(copy)
    return kept


def _is_cumulative(metric: Metric) -> bool:
    return metric.type in _CUMULATIVE and not metric.name.startswith(_PROCESS)


def _join(metric: Metric, one: Sample, other: Sample) -> Sample:
    if one.name.endswith("_created"):
        value = min(one.value, other.value)
    elif metric.type in _CUMULATIVE or metric.name in SUMMED:
        value = one.value + other.value
    else:
        value = max(one.value, other.value)
    return one._replace(value=value)
