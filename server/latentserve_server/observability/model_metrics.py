"""Metrics of one model version, updated by its batcher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from latentserve_server.batching.callbacks import DROPPED, REFUSED, BatcherCallbacks
from latentserve_server.observability.deferred_counters import Histogram, LabelledCounter

# Bucket bounds from 100 microseconds (a small model on an idle server) to ten seconds.
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_OPERATION = ("model", "version", "operation")


class _Operation:
    """The histograms of one operation."""

    __slots__ = ("batch_rows", "engine_seconds", "queue_seconds")

    def __init__(self) -> None:
        self.queue_seconds = Histogram(SECONDS)
        self.engine_seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(_ROWS)


class ModelMetrics(BatcherCallbacks):
    """Implements the callbacks of one version's batcher; safe from any thread."""

    def __init__(self) -> None:
        self.operations: dict[str, _Operation] = {}
        self.padding_rows = LabelledCounter()
        self.rejections = LabelledCounter()
        self.drops = LabelledCounter()
        self.failures = LabelledCounter()
        self.halves = LabelledCounter()
        self.not_finite_outputs = LabelledCounter()

    def waited(self, operation: str, seconds: float) -> None:
        """Record the queue time of a request, when its first rows leave the queue."""
        (self.operations.get(operation) or self._new(operation)).queue_seconds.observe(seconds)

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        """Record a batch that the engine ran."""
        found = self.operations.get(operation) or self._new(operation)
        found.engine_seconds.observe(seconds)
        found.batch_rows.observe(rows)

    def halved(self, operation: str) -> None:
        """Count a batch that was split in halves because the device was out of memory."""
        self.halves.add(operation)

    def padded(self, operation: str, rows: int) -> None:
        """Count the padding rows of a batch."""
        self.padding_rows.add(operation, count=rows)

    def failed(self, operation: str) -> None:
        """Count a request that the engine failed."""
        self.failures.add(operation)

    def not_finite(self, operation: str) -> None:
        """Count a request that failed because the model gave NaN or infinite values."""
        self.not_finite_outputs.add(operation)

    def refused(self, operation: str, reason: str) -> None:
        """Count a request that was refused at admission."""
        self.rejections.add(operation, reason)

    def dropped(self, operation: str, reason: str) -> None:
        """Count a request that was cancelled or expired before its reply."""
        self.drops.add(operation, reason)

    def _new(self, operation: str) -> _Operation:
        return self.operations.setdefault(operation, _Operation())


def collect_versions(
    versions: Iterable[tuple[tuple[str, str], ModelMetrics]],
) -> Iterator[Metric]:
    """Yield the metrics of model versions by (model, version)."""
    queue_seconds = HistogramMetricFamily(
        "latentserve_queue_seconds",
        "Time from the arrival of a request to the start of its first batch.",
        labels=_OPERATION,
    )
    engine_seconds = HistogramMetricFamily(
        "latentserve_engine_seconds",
        "Time of one batch in ONNX Runtime, including the copy into its buffer.",
        labels=_OPERATION,
    )
    batch_rows = HistogramMetricFamily(
        "latentserve_batch_rows", "Rows of one batch.", labels=_OPERATION
    )
    padding_rows = CounterMetricFamily(
        "latentserve_padding_rows",
        "Rows added to batches to match the batch size of a CUDA graph.",
        labels=_OPERATION,
    )
    rejected = CounterMetricFamily(
        "latentserve_rejected",
        f"Requests refused at admission, by reason: {_listed(REFUSED)}.",
        labels=(*_OPERATION, "reason"),
    )
    dropped = CounterMetricFamily(
        "latentserve_dropped",
        f"Requests dropped before their reply, by reason: {_listed(DROPPED)}.",
        labels=(*_OPERATION, "reason"),
    )
    failures = CounterMetricFamily(
        "latentserve_engine_failures", "Requests that the engine failed.", labels=_OPERATION
    )
    halves = CounterMetricFamily(
        "latentserve_halved_batches",
        "Batches run in two halves, because the device was out of memory.",
        labels=_OPERATION,
    )
    not_finite = CounterMetricFamily(
        "latentserve_not_finite_outputs",
        "Requests that failed because the model gave NaN or infinite values for them.",
        labels=_OPERATION,
    )
    for labels, version in versions:
        for operation, found in list(version.operations.items()):
            add_histogram(queue_seconds, (*labels, operation), SECONDS, found.queue_seconds)
            add_histogram(engine_seconds, (*labels, operation), SECONDS, found.engine_seconds)
            add_histogram(batch_rows, (*labels, operation), _ROWS, found.batch_rows)
        for family, counts in (
            (padding_rows, version.padding_rows),
            (rejected, version.rejections),
            (dropped, version.drops),
            (failures, version.failures),
            (halves, version.halves),
            (not_finite, version.not_finite_outputs),
        ):
            for more, count in counts.read().items():
                family.add_metric((*labels, *more), count)
    yield from (queue_seconds, engine_seconds, batch_rows, padding_rows)
    yield from (rejected, dropped, failures, halves, not_finite)


def _listed(reasons: Sequence[str]) -> str:
    return f"{', '.join(reasons[:-1])} or {reasons[-1]}"


def add_histogram(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    *histograms: Histogram,
) -> None:
    """Add the sum of histograms over the same buckets as one histogram."""
    read = [histogram.read() for histogram in histograms]
    counts = [sum(found) for found in zip(*(counts for counts, _ in read), strict=True)]
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        below += count
        buckets.append((floatToGoString(bound), below))  # type: ignore[no-untyped-call]
    family.add_metric(labels, buckets, sum(total for _, total in read))
