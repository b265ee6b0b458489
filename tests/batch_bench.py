"""Batcher with a fake engine and a manual clock; batches run only when the test calls for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_server.batching.batcher import Batcher
from latentserve_server.batching.callbacks import BatcherCallbacks
from latentserve_server.batching.request import Completion, QueuedRequest, Rows
from latentserve_server.errors import OutOfMemory

Floats = NDArray[np.float32]
POISON = -1.0
START_NS = 1_000_000_000


class FakeEngine:
    """Doubles its input, records every batch, and fails if a row is POISON.

    It has memory for `fitting_rows`. A batch advances the clock by `seconds(operation, rows)`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.batches: list[tuple[str, list[float]]] = []
        self.during_run: Callable[[], object] = lambda: None
        self.fitting_rows = 10**9
        self.seconds: Callable[[str, int], float] = lambda operation, rows: 0.0

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        (x,) = inputs
        self.batches.append((operation, x[:, 0].tolist()))
        self.during_run()
        self._clock.pass_s(self.seconds(operation, len(x)))
        if len(x) > self.fitting_rows:
            raise OutOfMemory("no memory")
        if (x == POISON).any():
            raise RuntimeError("poisoned")
        return [x * 2]


class Clock:
    """Manual clock in nanoseconds."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns

    @property
    def s(self) -> float:
        return self.ns / 1e9

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


class EventRecorder(BatcherCallbacks):
    """Records all events, without their durations."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def waited(self, operation: str, seconds: float) -> None:
        self.events.append(("waited", operation))

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        self.events.append(("ran", operation, str(rows)))

    def halved(self, operation: str) -> None:
        self.events.append(("halved", operation))

    def failed(self, operation: str) -> None:
        self.events.append(("failed", operation))

    def refused(self, operation: str, reason: str) -> None:
        self.events.append(("refused", operation, reason))

    def dropped(self, operation: str, reason: str) -> None:
        self.events.append(("dropped", operation, reason))


class Bench:
    """A batcher without a thread, and the completions of its requests."""

    def __init__(self, *, max_batch_rows: int = 8, queue_rows: int = 16, **options: Any) -> None:
        self.clock: Clock = options.pop("clock_ns", None) or Clock()
        self.engine = FakeEngine(self.clock)
        self.recorder = EventRecorder()
        self.batcher = Batcher(
            self.engine,
            name="fake",
            max_batch_rows=max_batch_rows,
            queue_rows=queue_rows,
            callbacks=self.recorder,
            clock_ns=self.clock,
            **options,
        )
        self.completions: dict[int, list[Completion]] = {}
        self._numbers = itertools.count()

    def submit(
        self, *values: float, operation: str = "decode", deadline: float | None = None
    ) -> tuple[int, QueuedRequest]:
        """Submit a request with one row per value; return its number and the request."""
        number = next(self._numbers)
        rows = Rows(np.array(values, dtype=np.float32).reshape(-1, 1))
        request = self.batcher.submit(
            operation,
            (rows,),
            deadline,
            lambda c: self.completions.setdefault(number, []).append(c),
        )
        return number, request

    def runs_next(self) -> bool:
        """Run the batches that are due; return whether there was one."""
        before = len(self.engine.batches)
        self.batcher.run_next()
        return len(self.engine.batches) > before

    def run_all(self) -> None:
        while self.batcher.run_next():
            pass

    def values(self, number: int) -> list[float]:
        """Return the outputs of a request, which must have completed once and without an error."""
        (completion,) = self.completions[number]
        assert completion.error is None
        return list(completion.outputs[0][:, 0].tolist())

    def error(self, number: int) -> Exception | None:
        (completion,) = self.completions[number]
        return completion.error
