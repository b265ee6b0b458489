"""Metrics of a model version with a real batcher, by operation and reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.request import Completion, QueuedRequest, Rows
from latentserve_server.errors import CallError
from latentserve_server.observability.model_metrics import ModelMetrics

Floats = NDArray[np.float32]
POISON = -1.0


class Engine:
    """Returns its input, 7 ms later by the clock; fails if a row is POISON."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def clock(self) -> int:
        return self.now_ns

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        self.now_ns += 7_000_000
        if (inputs[0] == POISON).any():
            raise RuntimeError("poisoned")
        return inputs


class Bench:
    """A batcher whose batches run on demand of the test."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.metrics = ModelMetrics()
        self.batcher = Batcher(
            self.engine,
            name="fake",
            max_batch_rows=4,
            queue_rows=8,
            callbacks=self.metrics,
            clock_ns=self.engine.clock,
        )
        self.completions: list[Completion] = []

    def submit(
        self, *values: float, operation: str = "decode", in_s: float | None = None
    ) -> QueuedRequest:
        rows = Rows(np.array(values, dtype=np.float32).reshape(-1, 1))
        deadline = None if in_s is None else self.engine.now_ns / 1e9 + in_s
        return self.batcher.submit(operation, (rows,), deadline, self.completions.append)

    def run_all(self) -> None:
        while self.batcher.run_next():
            pass


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_queue_time_engine_time_and_rows_are_counted_by_operation(bench: Bench) -> None:
    bench.submit(1.0, 2.0)
    bench.engine.now_ns += 3_000_000
    bench.submit(3.0)
    bench.submit(4.0, operation="encode")
    bench.run_all()
    decode, encode = bench.metrics.operations["decode"], bench.metrics.operations["encode"]
    assert decode.batch_rows.read()[1] == 3
    assert decode.engine_seconds.read()[1] == pytest.approx(0.007)
    assert decode.queue_seconds.read()[1] == pytest.approx(0.003)
    assert sum(decode.queue_seconds.read()[0]) == 2
    assert encode.batch_rows.read()[1] == 1
    assert encode.queue_seconds.read()[1] == pytest.approx(0.007)  # it waited for the other batch


def test_queued_rows_are_counted_by_operation(bench: Bench) -> None:
    assert bench.batcher.waiting_by_operation() == {}
    bench.submit(*[1.0] * 6)
    bench.submit(1.0, operation="encode")
    assert bench.batcher.waiting_by_operation() == {"decode": 6, "encode": 1}
    bench.batcher.run_next()
    assert bench.batcher.waiting_by_operation() == {"decode": 2, "encode": 1}
    bench.run_all()
    assert bench.batcher.waiting_by_operation() == {}


def test_refused_requests_are_counted_by_reason(bench: Bench) -> None:
    bench.submit(*[1.0] * 8)
    with pytest.raises(CallError):
        bench.submit(1.0, operation="encode")
    with pytest.raises(CallError):
        bench.submit(1.0, in_s=-1.0)
    bench.batcher.shutdown()
    for _ in range(2):
        with pytest.raises(CallError):
            bench.submit(1.0, operation="sample")
    assert bench.metrics.rejections.read() == {
        ("encode", "queue_full"): 1,
        ("decode", "deadline"): 1,
        ("sample", "unloading"): 2,
    }


def test_dropped_requests_are_counted_by_reason(bench: Bench) -> None:
    bench.submit(1.0, operation="encode").cancel()
    bench.submit(1.0, in_s=0.001)
    bench.engine.now_ns += 2_000_000
    bench.run_all()
    expected = {("encode", "cancelled"): 1, ("decode", "expired"): 1}
    assert bench.metrics.drops.read() == expected
    finished = bench.submit(1.0)
    bench.run_all()
    finished.cancel()
    assert bench.metrics.drops.read() == expected


def test_only_the_poisoned_request_counts_as_a_failure(bench: Bench) -> None:
    bench.submit(1.0)
    bench.submit(POISON)
    bench.submit(2.0)
    bench.run_all()
    assert bench.metrics.failures.read() == {("decode",): 1}


def test_a_completion_has_the_arrival_time_of_its_request(bench: Bench) -> None:
    arrived_ns = bench.engine.now_ns
    bench.submit(1.0)
    bench.engine.now_ns += 5_000_000
    bench.run_all()
    (completion,) = bench.completions
    assert completion.submitted_ns == arrived_ns
    assert completion.submitted_ns + completion.queue_ns + completion.compute_ns == (
        bench.engine.now_ns
    )
