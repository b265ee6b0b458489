"""Merges what waits into batches, and gives every caller exactly its own rows.

One batcher and one thread per engine. By default there is no timer: an idle engine takes what
is there at once, and while it runs the next batch fills, so a single caller pays no delay
and batches grow by themselves with the load. With a `max_delay_s`, a batch that is not full
waits so long at most since its first request came.

* Admission is by rows and bytes into bounded queues (`queue_quota`); a full one refuses at once.
* A request that will be too late when its turn comes is refused at once (`drain_rate`).
* A batch holds rows of one operation. A request larger than a batch runs in several.
* Cancelled callers leave the queue at once, expired ones when a batch is cut; the engine
  never runs for either. Those that run already get their answer, however late.
* A batch that fails is run again in parts (`executor`, `recovery`), so that a bad caller fails
  alone.

Nothing here knows gRPC or ONNX Runtime, and callbacks come from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from math import inf

from latentserve_server.batching.admission import Admission, too_late
from latentserve_server.batching.callbacks import Backlog, BatcherCallbacks
from latentserve_server.batching.executor import BatchExecutor, Runner
from latentserve_server.batching.latency_model import LatencyModel
from latentserve_server.batching.queue import Batch, RequestQueue
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.batching.request import NEVER_NS, Completion, Done, QueuedRequest, Rows
from latentserve_server.batching.service_rate import ServiceRate
from latentserve_server.errors import CallError, DeadlineExceeded, Unavailable

__all__ = ["Backlog", "Batcher", "BatcherCallbacks", "Runner"]

log = logging.getLogger(__name__)


class Batcher:
    """A bounded queue in front of one engine.

    Args:
        runner: runs the batches.
        name: of the thread and in the log.
        max_batch_rows: rows of one batch, at most.
        queue_rows, queue_bytes: what may wait, at most; see `queue_quota` for what is counted.
        max_delay_s: seconds that a batch may wait to be filled.
        budget: what may wait for this and other models together.
        observer: told of what happens, from any thread.
        clock_ns: monotonic nanoseconds; deadlines are seconds on the same clock.
        inline_hook: called, from the thread that submits, when work comes to an idle batcher. True
            says that somebody will call `run_next` until it returns False, or `wake_thread`;
            otherwise the batcher's own thread runs what there is. With a delay it always does,
            since somebody must wait.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        max_batch_rows: int,
        queue_rows: int,
        queue_bytes: int = 2**62,
        max_delay_s: float = 0.0,
        queue_quota: QueueQuota | None = None,
        callbacks: BatcherCallbacks | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        inline_hook: Callable[[Batcher], bool] | None = None,
    ) -> None:
        self._name = name
        self._max_batch_rows = max_batch_rows
        self._delay_ns = int(max_delay_s * 1e9)
        self._inline_hook = None if self._delay_ns else inline_hook
        self._callbacks = callbacks or BatcherCallbacks()
        self._clock_ns = clock_ns
        self._model_quota = (queue_quota or QueueQuota()).model_quota(
            max_rows=queue_rows, max_bytes=queue_bytes
        )
        self._queue = RequestQueue(self._model_quota)
        self._service_rate = ServiceRate(max_batch_rows)
        self._latency: dict[str, LatencyModel] = {}
        self._admission = Admission(
            name,
            self._queue,
            self._service_rate,
            max_batch_rows=max_batch_rows,
            delay_ns=self._delay_ns,
        )
        self._executor = BatchExecutor(
            runner,
            name=name,
            max_batch_rows=max_batch_rows,
            callbacks=self._callbacks,
            clock_ns=clock_ns,
        )
        self._lock = threading.RLock()
        self._running: Batch | None = None
        self._cut_ns = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._taken = False  # somebody runs what there is, or has promised to
        self._handed = False  # it is for the thread
        # The thread sleeps on the bell, until `_wakes_ns` where something waits to be filled.
        # Unlike a condition it can be rung without a lock, so `shutdown` may come from a finalizer,
        # which runs anywhere.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wakes_ns = NEVER_NS

    def estimate_next_batch(self) -> tuple[float, int]:
        """Return the seconds that the next batch will take, and how many calls are in it, about.

        Rather too many seconds; infinity where nothing like it has run. Safe from any thread.
        """
        with self._lock:
            operation, rows, calls = self._queue.next_up()
        most = self._max_batch_rows
        if rows > most:
            rows, calls = most, max(calls * most // rows, 1)
        elif not rows:
            return 0.0, 0
        latency = self._latency.get(operation)
        return inf if latency is None else latency.expected_s(rows), calls

    def learn(self, operation: str, rows: int, seconds: float) -> None:
        """Take in how long a batch of a warm-up took; of its own ones the batcher knows."""
        self._latency.setdefault(operation, LatencyModel()).learn(rows, seconds)
        self._service_rate.learn(operation, rows, seconds)

    @property
    def has_full_batch(self) -> bool:
        """Whether as many rows wait as a batch may have."""
        return self._model_quota.rows >= self._max_batch_rows

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, those of running batches not counted."""
        return self._model_quota.rows

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows in the queue, as they were sent."""
        return self._model_quota.nbytes

    def waiting_by_operation(self) -> dict[str, int]:
        """Return the rows in the queue of each operation that has some. Safe from any thread."""
        with self._lock:
            return {name: queue.rows for name, queue in self._queue.queues.items() if queue.rows}

    def backlog(self) -> Backlog | None:
        """Return the work that there is, None for an idle engine. Safe from any thread."""
        with self._lock:
            running, waiting_rows = self._running, self._model_quota.rows
            if running is not None:
                operation, running_rows = running.operation, running.rows
            elif waiting_rows:
                operation, running_rows = next(iter(self._queue)).operation, 0
            else:
                return None
            stalled_ns = self._clock_ns() - self._executor.progress_ns
        return Backlog(operation, running_rows, waiting_rows, stalled_ns / 1e9)

    def start(self) -> None:
        """Start the thread that runs the batches which nobody else takes."""
        self._thread = threading.Thread(target=self._loop, name=f"engine-{self._name}", daemon=True)
        self._thread.start()

    def submit(
        self, operation: str, inputs: tuple[Rows, ...], deadline: float | None, done: Done
    ) -> QueuedRequest:
        """Queue a request of at least one row.

        `deadline` is in seconds on the monotonic clock, or None. `done` is called once, from any
        thread, unless the request is cancelled. Raises QueueFull, DeadlineExceeded or Unavailable
        at once, and then `done` is never called.
        """
        now_ns = self._clock_ns()
        deadline_ns = NEVER_NS if deadline is None else deadline * 1e9
        request = QueuedRequest(self, operation, inputs, deadline_ns, done, now_ns)
        if deadline_ns <= now_ns:
            self._callbacks.refused(operation, "deadline")
            raise too_late()
        with self._lock:
            if self._closed:
                self._callbacks.refused(operation, "unloading")
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1.0)
            if self._running is None and not self._model_quota.rows:
                self._executor.progress_ns = now_ns
            elif deadline is not None:
                self._check_deadline(request)
            if self._delay_ns:
                request.due_ns = self._admission.due_ns(request)
            excess = self._queue.add(request)
            if excess is not None:
                reason = "total_full" if excess.of_all else "queue_full"
                self._callbacks.refused(operation, reason)
                elapsed_s = (now_ns - self._cut_ns) / 1e9
                raise self._admission.full(excess, self._running, elapsed_s)
            idle, self._taken = not self._taken, True
            if self._delay_ns and not idle and self._is_due_earlier():
                self._bell.put(None)
        if idle and not (self._inline_hook is not None and self._inline_hook(self)):
            self.wake_thread()
        return request

    def wake_thread(self) -> None:
        """Let the batcher's own thread run what there is: for one who took an offer."""
        self._handed = True
        self._bell.put(None)

    def forget(self, request: QueuedRequest) -> None:
        """Drop a request without an answer; nothing happens if it has its answer already."""
        with self._lock:
            if not request.settled:
                request.settled = True
                self._queue.leave(request)
                self._callbacks.dropped(request.operation, "cancelled")

    def shutdown(self) -> None:
        """Accept nothing more; the thread ends once it has run what waits. Does not block."""
        self._closed = True
        self._model_quota.ended = True
        self._bell.put(None)

    def close(self, *, timeout_s: float) -> None:
        """End, and wait for it; what still waits after `timeout_s` gets Unavailable."""
        self.shutdown()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._lock:
            left = list(self._queue)
        self._settle(left, Unavailable("the server stopped before the request ran"))

    def next_due_ns(self) -> float | None:
        """Return when the next batch is due, on the batcher's clock; None where nothing waits.

        It may be past: a full batch is due at once, and without a delay so is any.
        """
        with self._lock:
            if self._closed or not self._delay_ns:
                return 0.0 if self._model_quota.rows else None
            return self._queue.due_ns(self._max_batch_rows)

    def run_next(self) -> bool:
        """Cut one batch and run it on the calling thread; False once nothing more is due.

        One thread at a time may: the batcher's own, or whoever took an offer; tests do it by
        hand.
        """
        with self._lock:
            cut_ns = self._clock_ns()
            due_only = self._delay_ns > 0 and not self._closed
            batch, expired = self._queue.cut(self._max_batch_rows, cut_ns, due_only=due_only)
            self._running, self._cut_ns = batch, cut_ns
            if batch is None:
                self._rest()
        for request in expired:
            self._callbacks.dropped(request.operation, "expired")
            self._settle([request], too_late(request.cut_rows, request.rows))
        if batch is None:
            return False
        engine_ns = self._executor.run(batch, cut_ns, self._settle)
        if engine_ns is not None:
            self._has_run(batch, engine_ns, self._clock_ns() - cut_ns)
        with self._lock:
            self._running = None
            return not self._rest()

    def _rest(self) -> bool:
        """End the work if nothing waits: the next request is offered again. Under the lock."""
        if self._model_quota.rows:
            return False
        self._taken = False
        if self._closed:
            self._bell.put(None)
        return True

    def _has_run(self, batch: Batch, engine_ns: int, whole_ns: int) -> None:
        operation, _, rows = batch
        latency = self._latency.get(operation)
        if latency is None:
            latency = self._latency[operation] = LatencyModel()
        latency.learn(rows, engine_ns / 1e9)
        # The answers are part of it: the next batch waits for them, too.
        self._service_rate.learn(operation, rows, whole_ns / 1e9)
        self._model_quota.rows_per_s = self._service_rate.rows_per_s

    def _loop(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=self._sleep_s())
            if self._handed or self._delay_ns:
                self._handed = False
                while self.run_next():
                    pass
            with self._lock:
                if self._closed and not self._taken:
                    return

    def _sleep_s(self) -> float | None:
        """Return how long the thread may sleep, None: until the bell rings."""
        if not self._delay_ns:
            return None
        with self._lock:
            due_ns = self.next_due_ns()
            self._wakes_ns = NEVER_NS if due_ns is None else due_ns
        return None if due_ns is None else max(due_ns - self._clock_ns(), 0.0) / 1e9

    def _settle(self, requests: list[QueuedRequest], error: CallError | None) -> None:
        """Answer requests, each once; a callback that fails harms nobody else."""
        with self._lock:
            requests = [request for request in requests if not request.settled]
            for request in requests:
                request.settled = True
                if request.cut_rows < request.rows:
                    self._queue.leave(request)
        for request in requests:
            completion = Completion(
                request.outputs if error is None else (),
                error,
                request.submitted_ns,
                request.queue_ns,
                request.compute_ns,
                request.batch_rows,
            )
            try:
                request.done(completion)
            except Exception:  # the next caller's answer must not depend on it
                log.exception("%s: a completion callback failed", self._name)

    def _check_deadline(self, request: QueuedRequest) -> None:
        try:
            self._admission.check_deadline(request, self._running, self._cut_ns)
        except DeadlineExceeded:
            self._callbacks.refused(request.operation, "deadline")
            raise

    def _is_due_earlier(self) -> bool:
        due_ns = self._queue.due_ns(self._max_batch_rows)
        return due_ns is not None and due_ns < self._wakes_ns
