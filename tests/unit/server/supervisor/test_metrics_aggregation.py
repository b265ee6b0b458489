"""Aggregation of the metrics of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from latentserve_server.supervisor.metrics_aggregation import AggregatedCollector, merge


class FakeWorker:
    """A worker with metrics; it replies unless it is frozen."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ("model", "version"), registry=self.registry)
        self.seconds = Histogram("s", "Time.", buckets=(1, 10), registry=self.registry)
        self.queue = Gauge("latentserve_queue_rows", "Rows.", registry=self.registry)
        self.state = Gauge(
            "latentserve_model_state", "State.", ("model", "version"), registry=self.registry
        )
        self.serve("a")
        self.last_report: Sequence[Metric] = ()
        self.frozen = False

    def serve(self, model: str) -> None:
        self.state.labels(model, "1").set(1)

    def forget(self, model: str) -> None:
        self.state.remove(model, "1")
        self.calls.remove(model, "1")

    def call(self, model: str = "a", times: int = 1) -> None:
        self.calls.labels(model, "1").inc(times)

    def request_report(self) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.frozen:
            self.last_report = list(self.registry.collect())
            future.set_result(self.last_report)
        return future


@pytest.fixture
def aggregated() -> AggregatedCollector:
    return AggregatedCollector()


@pytest.fixture
def workers(aggregated: AggregatedCollector) -> list[FakeWorker]:
    workers = [FakeWorker(1), FakeWorker(2)]
    for worker in workers:
        aggregated.add(worker)
    return workers


def value(aggregated: AggregatedCollector, name: str, **labels: str) -> float | None:
    """Return the value of a series in a scrape, parsed from the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(aggregated)
    found = [
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1, f"{name} has {len(found)} series"
    return found[0] if found else None


def test_counters_and_histograms_are_summed(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker, seconds in zip(workers, (0.5, 5.0), strict=True):
        worker.call(times=worker.number)
        worker.seconds.observe(seconds)
    assert value(aggregated, "calls_total", model="a") == 3
    assert value(aggregated, "s_count") == 2
    assert value(aggregated, "s_sum") == 5.5
    assert [value(aggregated, "s_bucket", le=le) for le in ("1.0", "10.0", "+Inf")] == [1, 2, 2]


def test_queued_rows_are_summed_and_other_gauges_take_the_largest_value(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker in workers:
        worker.queue.set(10 * worker.number)
    assert value(aggregated, "latentserve_queue_rows") == 30
    assert value(aggregated, "latentserve_model_state", model="a") == 1


def test_a_sum_does_not_decrease_when_a_worker_exits(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker in workers:
        worker.call(times=5)
        worker.seconds.observe(2.0)
        worker.queue.set(4)
    assert value(aggregated, "calls_total", model="a") == 10
    aggregated.retire(workers[0])
    assert value(aggregated, "calls_total", model="a") == 10
    assert value(aggregated, "s_bucket", le="10.0") == 2
    assert value(aggregated, "latentserve_queue_rows") == 4  # gauges of exited workers are dropped
    successor = FakeWorker(1)
    aggregated.add(successor)
    successor.call(times=2)
    assert value(aggregated, "calls_total", model="a") == 12
    successor.request_report()
    aggregated.retire(successor)
    assert value(aggregated, "calls_total", model="a") == 12


def test_a_worker_that_does_not_reply_counts_with_its_last_report(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    workers[0].call(times=3)
    assert value(aggregated, "calls_total", model="a") == 3
    workers[0].frozen = True
    workers[0].call()
    workers[1].call()
    assert value(aggregated, "calls_total", model="a") == 4


def test_the_series_of_a_removed_version_are_dropped_even_if_an_exited_worker_had_them(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker in workers:
        worker.serve("b")
        worker.call("b")
        worker.call("a")
    assert value(aggregated, "calls_total", model="b") == 2
    aggregated.retire(workers[0])
    assert value(aggregated, "calls_total", model="b") == 2
    workers[1].forget("b")
    assert value(aggregated, "calls_total", model="b") is None
    assert value(aggregated, "calls_total", model="a") == 2


def test_a_version_that_is_removed_and_added_again_counts_from_zero(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker in workers:
        worker.serve("b")
        worker.call("b", times=5)
    assert value(aggregated, "calls_total", model="b") == 10
    aggregated.retire(workers[0])
    workers[1].forget("b")
    assert value(aggregated, "calls_total", model="b") is None
    workers[1].serve("b")
    workers[1].call("b")
    assert value(aggregated, "calls_total", model="b") == 1


def test_process_metrics_have_a_worker_label_and_include_the_supervisor(
    aggregated: AggregatedCollector,
) -> None:
    assert (value(aggregated, "process_resident_memory_bytes", worker="0") or 0) > 1e6
    memory = Metric("process_resident_memory_bytes", "Memory.", "gauge")
    memory.add_sample("process_resident_memory_bytes", {}, 5.0)
    (joined,) = merge({1: [memory], 2: [memory]})
    assert [sample.labels for sample in joined.samples] == [{"worker": "1"}, {"worker": "2"}]


def test_counters_remain_after_all_workers_have_exited(
    aggregated: AggregatedCollector, workers: list[FakeWorker]
) -> None:
    for worker in workers:
        worker.call()
        worker.request_report()
        aggregated.retire(worker)
    assert value(aggregated, "calls_total", model="a") == 2
