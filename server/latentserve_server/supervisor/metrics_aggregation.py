"""The metrics of several workers as those of one server.

prometheus_client has a mode for several processes, with files that they share; but in it no
series can be removed and collectors of one's own do not work, and we need both. Here the
supervisor asks its workers at every scrape, and adds up.

* Counters and histograms are summed, those of workers that ended included, so that no sum ever
  falls. What a worker counted after its last report dies with it, if it is killed.
* Of gauges the largest counts, or the sum: `SUMMED`.
* `process_*` are told apart by a label `worker`; 0 is the supervisor.
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

SUMMED = frozenset({"latentserve_queue_rows"})
"""Gauges that are summed over the workers."""

REPORT_INTERVAL_S = 5.0
_REPORT_LIMIT_S = 2.0
_SUPERVISOR = 0
_COUNTED = ("counter", "histogram")
_PROCESS = "process_"

Key = tuple[str, tuple[tuple[str, str], ...]]


class Reporter(Protocol):
    """A worker that can be asked for its metrics."""

    number: int

    def ask_report(self) -> Future[Any]:
        """Ask it; the future gives a list of Metric, or raises."""

    @property
    def last_report(self) -> Sequence[Metric]:
        """The last metrics known."""


class AggregatedCollector(Collector):
    """The sum over the workers that there are and those that there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[Reporter] = []
        self._ended: list[Metric] = []
        self._process = ProcessCollector(registry=None)
        self._closed = threading.Event()

    def add(self, worker: Reporter) -> None:
        """A worker was started."""
        with self._lock:
            self._live.append(worker)

    def retire(self, worker: Reporter) -> None:
        """A worker ended; what it counted stays."""
        with self._lock:
            self._live.remove(worker)
            counted = [metric for metric in worker.last_report if _is_counted(metric)]
            self._ended = merge({0: self._ended, 1: counted})

    def collect(self) -> Iterator[Metric]:
        """Ask every worker, and add up; called for every scrape."""
        with self._lock:
            live, ended = list(self._live), self._ended
        reports = _reports(live)
        reports[_SUPERVISOR] = list(self._process.collect())
        kept = forget_removed(ended, reports.values())
        with self._lock:
            if self._ended is ended:  # else a worker ended meanwhile
                self._ended = kept
        yield from merge({**reports, -1: kept})

    def keep_fresh(self) -> None:
        """Ask every few seconds, until `close`, so that little is lost with a worker."""
        while not self._closed.wait(REPORT_INTERVAL_S):
            with self._lock:
                live = list(self._live)
            _reports(live)

    def close(self) -> None:
        """End `keep_fresh`."""
        self._closed.set()


def _reports(workers: Sequence[Reporter]) -> dict[int, Sequence[Metric]]:
    """Ask all at once; who does not answer in time counts as it last did."""
    asked = {worker: worker.ask_report() for worker in workers}
    answered = wait(asked.values(), _REPORT_LIMIT_S).done
    return {
        worker.number: future.result()
        if future in answered and future.exception() is None
        else worker.last_report
        for worker, future in asked.items()
    }


def merge(reports: Mapping[int, Iterable[Metric]]) -> list[Metric]:
    """Return one family per name, of the reports of each worker by its number."""
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


def forget_removed(ended: Iterable[Metric], live: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Return what ended workers counted, without the versions that no worker knows any more."""
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


def _is_counted(metric: Metric) -> bool:
    return metric.type in _COUNTED and not metric.name.startswith(_PROCESS)


def _join(metric: Metric, one: Sample, other: Sample) -> Sample:
    if one.name.endswith("_created"):
        value = min(one.value, other.value)
    elif metric.type in _COUNTED or metric.name in SUMMED:
        value = one.value + other.value
    else:
        value = max(one.value, other.value)
    return one._replace(value=value)
