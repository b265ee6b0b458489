"""Merges what waits into batches, and gives every caller exactly its own rows.

One batcher and one thread per engine. There is no timer: an idle engine takes what is
there at once, and while it runs the next batch fills, so a single caller pays no delay
and batches grow by themselves with the load.

* Admission is by rows into a bounded queue; a full queue refuses at once.
* A batch holds rows of one operation. A request larger than a batch runs in several.
* Cancelled callers leave the queue at once, expired ones when a batch is cut; the engine
  never runs for either.
* A batch that fails is run again caller by caller, so that a bad one fails alone.

This module knows neither gRPC nor ONNX Runtime, and callbacks come from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, Protocol

import numpy as np

from latentserve_server.errors import (
    CallError,
    DeadlineExceeded,
    EngineFailure,
    QueueFull,
    Unavailable,
)
from latentserve_server.pace import Pace
from latentserve_server.row_queue import Batch, RowQueue, Slice
from latentserve_server.ticket import Completion, Done, Floats, Rows, Ticket

log = logging.getLogger(__name__)


class Runner(Protocol):
    """What the batcher needs of an engine."""

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        """Run one batch; every input and output has the same number of rows."""


class Observer:
    """Hears of what happens in a batcher; this one does nothing. Must be quick and not fail."""

    def waited(self, operation: str, seconds: float) -> None:
        """A request's first rows left the queue."""

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        """The engine ran a batch."""

    def padded(self, operation: str, rows: int) -> None:
        """The engine ran a batch with so many rows of padding."""

    def failed(self, operation: str) -> None:
        """The engine failed for one request."""

    def refused(self, operation: str, reason: str) -> None:
        """A request was not admitted: `queue_full`, `deadline` or `unloading`."""

    def dropped(self, operation: str, reason: str) -> None:
        """A request ended before its answer: `cancelled` or `expired`."""


class Backlog(NamedTuple):
    """Work that has no answer yet.

    `operation` is what is running, or first in the queue where nothing is. `stalled_s` is the
    time since a batch finished, or since there is work at all, whichever is shorter.
    """

    operation: str
    running_rows: int
    waiting_rows: int
    stalled_s: float


class Batcher:
    """A bounded queue in front of one engine.

    Args:
        runner: runs the batches.
        name: of the thread and in the log.
        max_batch_rows: rows of one batch, at most.
        queue_rows: rows that may wait, at most.
        observer: told of what happens, from any thread.
        clock_ns: monotonic nanoseconds; deadlines are seconds on the same clock.
        offer: called, from the thread that submits, when work comes to an idle batcher. True
            says that somebody will call `run_next` until it returns False, or `hand_over`;
            otherwise the batcher's own thread runs what there is.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        max_batch_rows: int,
        queue_rows: int,
        observer: Observer | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        offer: Callable[[Batcher], bool] | None = None,
    ) -> None:
        self._offer = offer
        self._taken = False  # somebody runs what there is, or has promised to
        self._handed = False  # it is for the thread
        self._runner = runner
        self._name = name
        self._max_batch_rows = max_batch_rows
        self._queue = RowQueue(queue_rows)
        self._observer = observer or Observer()
        self._clock_ns = clock_ns
        self._condition = threading.Condition()
        self._rows_per_s = 0.0
        self._pace: dict[str, Pace] = {}
        self._running: Batch | None = None
        self._progress_ns = 0
        self._closed = False
        self._buffers: dict[str, tuple[Floats, ...]] = {}
        self._thread: threading.Thread | None = None

    @property
    def expected_s(self) -> float:
        """Seconds that the next batch will take, as far as is known."""
        with self._condition:
            operation = self._queue.next_operation()
            rows = min(self._queue.waiting_rows, self._max_batch_rows)
        if not rows:
            return 0.0
        return self._pace[operation].expected_s(rows) if operation in self._pace else inf

    def learn(self, operation: str, rows: int, seconds: float) -> None:
        """Take in how long a batch took: one of the batcher's own, or one of a warm-up."""
        self._pace.setdefault(operation, Pace()).learn(rows, seconds)

    @property
    def is_full(self) -> bool:
        """Whether as many rows wait as a batch may have."""
        return self._queue.waiting_rows >= self._max_batch_rows

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, those of running batches not counted."""
        return self._queue.waiting_rows

    def waiting_by_operation(self) -> dict[str, int]:
        """Return the rows in the queue of each operation that has some. Safe from any thread."""
        rows: dict[str, int] = {}
        with self._condition:
            for ticket in self._queue:
                waiting = ticket.rows - ticket.cut_rows
                rows[ticket.operation] = rows.get(ticket.operation, 0) + waiting
        return rows

    def backlog(self) -> Backlog | None:
        """Return the work that there is, None for an idle engine. Safe from any thread."""
        with self._condition:
            running, waiting_rows = self._running, self._queue.waiting_rows
            if running is not None:
                operation, running_rows = running.operation, running.rows
            elif waiting_rows:
                operation, running_rows = next(iter(self._queue)).operation, 0
            else:
                return None
            stalled_ns = self._clock_ns() - self._progress_ns
        return Backlog(operation, running_rows, waiting_rows, stalled_ns / 1e9)

    def start(self) -> None:
        """Start the thread that runs the batches which nobody else takes."""
        self._thread = threading.Thread(target=self._loop, name=f"engine-{self._name}", daemon=True)
        self._thread.start()

    def submit(
        self, operation: str, inputs: tuple[Rows, ...], deadline: float | None, done: Done
    ) -> Ticket:
        """Queue a request; `done` is called once, from any thread, unless it is cancelled.

        `deadline` is in seconds on the monotonic clock, or None. Raises QueueFull,
        DeadlineExceeded or Unavailable at once, and then `done` is never called.
        """
        now_ns = self._clock_ns()
        ticket = Ticket(self._forget, operation, inputs, deadline, done, now_ns)
        if deadline is not None and deadline * 1e9 <= now_ns:
            self._observer.refused(operation, "deadline")
            raise _too_late()
        with self._condition:
            if self._closed:
                self._observer.refused(operation, "unloading")
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1.0)
            if not self._queue.has_room(ticket.rows):
                self._observer.refused(operation, "queue_full")
                raise self._full(ticket.rows)
            if self._running is None and not self._queue.waiting_rows:
                self._progress_ns = now_ns
            self._queue.add(ticket)
            idle, self._taken = not self._taken, True
        if idle and not (self._offer is not None and self._offer(self)):
            self.hand_over()
        return ticket

    def hand_over(self) -> None:
        """Let the batcher's own thread run what there is: for one who took an offer."""
        with self._condition:
            self._handed = True
            self._condition.notify()

    def _forget(self, ticket: Ticket) -> None:
        """Drop a request without an answer; nothing happens if it has its answer already."""
        with self._condition:
            if not ticket.settled:
                ticket.settled = True
                self._queue.leave(ticket)
                self._observer.dropped(ticket.operation, "cancelled")

    def end(self) -> None:
        """Accept nothing more; the thread ends once it has run what waits. Does not block."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def close(self, *, timeout_s: float) -> None:
        """End, and wait for it; what still waits after `timeout_s` gets Unavailable."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._condition:
            left = list(self._queue)
        for ticket in left:
            self._settle(ticket, Unavailable("the server stopped before the request ran"))

    def run_next(self) -> bool:
        """Cut one batch and run it on the calling thread; False where nothing waited.

        One thread at a time may: the batcher's own, or whoever took an offer; tests do it by
        hand.
        """
        with self._condition:
            batch, expired = self._queue.cut(self._max_batch_rows, self._clock_ns() / 1e9)
            self._running = batch
            if batch is None and not expired:
                self._taken = False
                if self._closed:
                    self._condition.notify()
        for ticket in expired:
            self._observer.dropped(ticket.operation, "expired")
            self._settle(ticket, _too_late())
        if batch is None:
            return bool(expired)
        self._run(batch)
        with self._condition:
            self._running = None
        return True

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._handed:
                    if self._closed and not self._taken:
                        return
                    self._condition.wait()
                self._handed = False
            while self.run_next():
                pass

    def _run(self, batch: Batch) -> None:
        started_ns = self._clock_ns()
        for part in batch.slices:
            if part.start == 0:
                part.ticket.queue_ns = started_ns - part.ticket.submitted_ns
                self._observer.waited(batch.operation, part.ticket.queue_ns / 1e9)
        try:
            outputs = self._run_engine(batch)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, callers get an answer
            self._progress_ns = self._clock_ns()
            self._recover(batch, error)
            return
        self._progress_ns = self._clock_ns()
        elapsed_ns = self._progress_ns - started_ns
        self._learn_rate(batch.rows, elapsed_ns)
        self.learn(batch.operation, batch.rows, elapsed_ns / 1e9)
        self._observer.ran(batch.operation, batch.rows, elapsed_ns / 1e9)
        offset = 0
        for part in batch.slices:
            mine = tuple(output[offset : offset + part.rows] for output in outputs)
            offset += part.rows
            try:
                self._deliver(part, mine, elapsed_ns, batch.rows)
            except Exception as error:  # for example MemoryError while rows are joined
                log.exception("%s: an answer could not be assembled", self._name)
                self._settle(part.ticket, _engine_failure(error))

    def _run_engine(self, batch: Batch) -> Sequence[Floats]:
        buffers = self._buffers_for(batch)
        offset = 0
        for ticket, start, stop in batch.slices:
            for buffer, rows in zip(buffers, ticket.inputs, strict=True):
                rows.write(buffer[offset : offset + stop - start], start, stop)
            offset += stop - start
        outputs = self._runner.run(batch.operation, [buffer[: batch.rows] for buffer in buffers])
        for output in outputs:
            if len(output) != batch.rows:
                raise RuntimeError(f"the graph gave {len(output)} rows for {batch.rows}")
        return outputs

    def _buffers_for(self, batch: Batch) -> tuple[Floats, ...]:
        """Return the operation's input buffers; one thread runs one batch at a time."""
        if batch.operation not in self._buffers:
            self._buffers[batch.operation] = tuple(
                np.empty((self._max_batch_rows, *rows.array.shape[1:]), dtype=np.float32)
                for rows in batch.slices[0].ticket.inputs
            )
        return self._buffers[batch.operation]

    def _recover(self, batch: Batch, error: Exception) -> None:
        """Run a failed batch again caller by caller; a batch of one caller just fails."""
        if len(batch.slices) == 1:
            log.error(
                "%s: %s failed for %d rows", self._name, batch.operation, batch.rows, exc_info=error
            )
            self._observer.failed(batch.operation)
            self._settle(batch.slices[0].ticket, _engine_failure(error))
            return
        log.warning(
            "%s: a batch of %d callers failed (%s); running them one by one",
            self._name,
            len(batch.slices),
            error,
        )
        for part in batch.slices:
            if not part.ticket.settled:
                self._run(Batch(batch.operation, [part], part.rows))

    def _deliver(
        self, part: Slice, outputs: tuple[Floats, ...], compute_ns: int, batch_rows: int
    ) -> None:
        ticket, start, stop = part
        if ticket.settled:
            return
        ticket.compute_ns += compute_ns
        ticket.batch_rows = max(ticket.batch_rows, batch_rows)
        ticket.finished_rows += stop - start
        if stop - start == ticket.rows:
            ticket.outputs = outputs  # the common case: no copy
        else:
            if not ticket.outputs:
                ticket.outputs = tuple(
                    np.empty((ticket.rows, *output.shape[1:]), dtype=output.dtype)
                    for output in outputs
                )
            for whole, output in zip(ticket.outputs, outputs, strict=True):
                whole[start:stop] = output
        if ticket.finished_rows == ticket.rows:
            self._settle(ticket, None)

    def _settle(self, ticket: Ticket, error: CallError | None) -> None:
        """Answer a request, once; a callback that fails harms nobody else."""
        with self._condition:
            if ticket.settled:
                return
            ticket.settled = True
            self._queue.leave(ticket)
        completion = Completion(
            outputs=ticket.outputs if error is None else (),
            error=error,
            submitted_ns=ticket.submitted_ns,
            queue_ns=ticket.queue_ns,
            compute_ns=ticket.compute_ns,
            batch_rows=ticket.batch_rows,
        )
        try:
            ticket.done(completion)
        except Exception:  # the next caller's answer must not depend on it
            log.exception("%s: a completion callback failed", self._name)

    def _learn_rate(self, rows: int, elapsed_ns: int) -> None:
        rate = rows * 1e9 / max(elapsed_ns, 1)
        self._rows_per_s = rate if not self._rows_per_s else 0.8 * self._rows_per_s + 0.2 * rate

    def _full(self, rows: int) -> QueueFull:
        waiting, limit = self._queue.waiting_rows, self._queue.limit
        drain_s = waiting / self._rows_per_s if self._rows_per_s else 0.1
        return QueueFull(
            f"the queue of {self._name} is full: {waiting} rows wait, the request has {rows}, "
            f"the limit is {limit}. Try again later, or with fewer rows",
            metadata={"waiting_rows": str(waiting), "queue_rows": str(limit)},
            retry_after_s=min(max(drain_s, 0.01), 5.0),
        )


def _engine_failure(error: Exception) -> EngineFailure:
    failure = EngineFailure(f"the engine failed: {error}")
    failure.__cause__ = error
    return failure


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline passed while the request waited; the model did not run. "
        "Allow more time, or send fewer requests at once"
    )
