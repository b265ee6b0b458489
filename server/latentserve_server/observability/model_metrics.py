"""What happens in the batcher of one version, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from latentserve_server.batching.callbacks import DROPPED, REFUSED, BatcherCallbacks
from latentserve_server.observability.deferred_counters import Histogram, LabelledCounter

# From 100 microseconds, a small model on an idle server, to ten seconds.
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_OPERATION = ("model", "version", "operation")


class _Operation:
    """The distributions of one operation."""

    __slots__ = ("batch_rows", "engine_seconds", "queue_seconds")

    def __init__(self) -> None:
        self.queue_seconds = Histogram(SECONDS)
        self.engine_seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(_ROWS)


class ModelMetrics(BatcherCallbacks):
    """Told by the batcher of one version, from any thread."""

    def __init__(self) -> None:
        self.operations: dict[str, _Operation] = {}
        self.padding_rows = LabelledCounter()
        self.rejections = LabelledCounter()
        self.drops = LabelledCounter()
        self.failures = LabelledCounter()
        self.halves = LabelledCounter()

    def waited(self, operation: str, seconds: float) -> None:
        """A request's first rows left the queue."""
        (self.operations.get(operation) or self._new(operation)).queue_seconds.observe(seconds)

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        """The engine ran a batch."""
        found = self.operations.get(operation) or self._new(operation)
        found.engine_seconds.observe(seconds)
        found.batch_rows.observe(rows)

    def halved(self, operation: str) -> None:
        """The device had no memory for a batch."""
        self.halves.add(operation)

    def padded(self, operation: str, rows: int) -> None:
        """The engine ran a batch with so many rows of padding."""
        self.padding_rows.add(operation, count=rows)

    def failed(self, operation: str) -> None:
        """The engine failed for one request."""
        self.failures.add(operation)

    def refused(self, operation: str, reason: str) -> None:
        """A request was not admitted."""
        self.rejections.add(operation, reason)

    def dropped(self, operation: str, reason: str) -> None:
        """A request ended before its answer."""
        self.drops.add(operation, reason)

    def _new(self, operation: str) -> _Operation:
        return self.operations.setdefault(operation, _Operation())


def collect_versions(
    versions: Iterable[tuple[tuple[str, str], ModelMetrics]],
) -> Iterator[Metric]:
    """Give the metrics of versions, each under its (model, version)."""
    queue_seconds = HistogramMetricFamily(
        "latentserve_queue_seconds",
        "Time that a request waited for its first batch.",
        labels=_OPERATION,
    )
    engine_seconds = HistogramMetricFamily(
        "latentserve_engine_seconds",
        "Time of one batch in ONNX Runtime, the copy into its buffer included.",
        labels=_OPERATION,
    )
    batch_rows = HistogramMetricFamily(
        "latentserve_batch_rows", "Rows of one batch.", labels=_OPERATION
    )
    padding_rows = CounterMetricFamily(
        "latentserve_padding_rows",
        "Rows that were added to batches to fill the size of a CUDA graph.",
        labels=_OPERATION,
    )
    rejected = CounterMetricFamily(
        "latentserve_rejected",
        f"Requests that were not admitted, by reason: {_listed(REFUSED)}.",
        labels=(*_OPERATION, "reason"),
    )
    dropped = CounterMetricFamily(
        "latentserve_dropped",
        f"Requests that ended before their answer, by reason: {_listed(DROPPED)}.",
        labels=(*_OPERATION, "reason"),
    )
    failures = CounterMetricFamily(
        "latentserve_engine_failures", "Requests that the engine failed for.", labels=_OPERATION
    )
    halves = CounterMetricFamily(
        "latentserve_halved_batches",
        "Batches that the device had no memory for, and that were run in two halves.",
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
        ):
            for more, count in counts.read().items():
                family.add_metric((*labels, *more), count)
    yield from (queue_seconds, engine_seconds, batch_rows, padding_rows)
    yield from (rejected, dropped, failures, halves)


def _listed(reasons: Sequence[str]) -> str:
    return f"{', '.join(reasons[:-1])} or {reasons[-1]}"


def add_histogram(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    *distributions: Histogram,
) -> None:
    """Add the sum of distributions over the same buckets as one histogram."""
    read = [distribution.read() for distribution in distributions]
    counts = [sum(found) for found in zip(*(counts for counts, _ in read), strict=True)]
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        below += count
        buckets.append((floatToGoString(bound), below))  # type: ignore[no-untyped-call]
    family.add_metric(labels, buckets, sum(total for _, total in read))
