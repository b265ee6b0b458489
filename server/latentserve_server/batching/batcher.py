"""Dynamic batcher: merges queued requests into batches and splits the outputs by request.

One batcher and one thread per engine. By default no timer is used: an idle engine runs the queued
requests at once, and the next batch fills while it runs, so batches grow with the load. With
`max_delay_s`, a batch that is not full waits up to this time after its oldest request arrived.

* Admission is by rows and bytes into bounded queues (`quota`); a full queue refuses at once.
* A request that is expected to miss its deadline is refused at once (`admission`).
* A batch holds rows of one operation. A request larger than a batch runs in several batches.
* Cancelled requests leave the queue at once, expired ones when the next batch is taken; the engine
  runs for neither. A request that already runs gets its result, even after its deadline.
* A failed batch is retried in parts (`executor`, `splitting`): only the faulty request fails.

The batcher knows neither gRPC nor ONNX Runtime, and calls its callbacks from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from math import inf

from latentserve_server.batching.admission import Admission, deadline_error
from latentserve_server.batching.callbacks import Backlog, BatcherCallbacks
from latentserve_server.batching.executor import BatchExecutor, Runner
from latentserve_server.batching.latency_model import LatencyModel
from latentserve_server.batching.queue import Batch, RequestQueue
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.batching.request import NEVER_NS, Done, Inputs, QueuedRequest
from latentserve_server.batching.room import RoomWaiter
from latentserve_server.batching.service_rate import ServiceRate
from latentserve_server.errors import CallError, DeadlineExceeded, Unavailable
from latentserve_server.vital_thread import VitalThread

__all__ = ["Backlog", "Batcher", "BatcherCallbacks", "Runner"]

log = logging.getLogger(__name__)


class Batcher:
    """A bounded queue in front of one engine, and the thread that runs its batches.

    Args:
        runner: runs the batches.
        name: name of the model, in the log and of the thread.
        max_batch_rows: maximum rows of a batch.
        queue_rows, queue_bytes: the quota of this model; see `quota` for what it counts.
        max_delay_s: seconds that a batch may wait to be filled.
        queue_quota: the total quota, shared with other models.
        callbacks: called on events, from any thread.
        clock_ns: monotonic nanoseconds; deadlines are seconds on the same clock.
        inline_hook: for inline execution: called on the submitting thread when a request arrives at
            an idle batcher. If it returns True, its owner must call `run_next` until that returns
            False, or `wake_thread`. Otherwise the batcher's own thread runs the batches. Not used
            with a delay, because a thread must wait for it.
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
        self.name = name
        self._max_batch_rows = max_batch_rows
        self._delay_ns = int(max_delay_s * 1e9)
        self.inline_hook = None if self._delay_ns else inline_hook
        self._callbacks = callbacks or BatcherCallbacks()
        self._clock_ns = clock_ns
        queue_quota = queue_quota or QueueQuota()
        self.room = queue_quota.room
        self._model_quota = queue_quota.model_quota(max_rows=queue_rows, max_bytes=queue_bytes)
        self._queue = RequestQueue(self._model_quota)
        self._service_rate = ServiceRate(max_batch_rows)
        self._latency: dict[str, LatencyModel] = {}
        self._admission = Admission(
            *(name, self._queue, self._service_rate),
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
        self._started_ns = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._claimed = False  # a thread runs the batches, or the inline hook agreed to
        self._handed_to_thread = False  # the batcher's own thread is to run the batches
        # The thread waits on this queue, with a delay until `_wakeup_ns`. Unlike a condition, it
        # needs no lock to wake a thread, so `shutdown` can be called from a finalizer, which may
        # run at any point of any thread.
        self._wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wakeup_ns = NEVER_NS

    def estimate_next_batch(self) -> tuple[float, int]:
        """Return the expected seconds of the next batch, and about how many requests it holds.

        The seconds are rather too high; infinity if no batch has run. Safe from any thread.
        """
        with self._lock:
            operation, rows, calls = self._queue.peek()
        max_rows = self._max_batch_rows
        if rows > max_rows:
            rows, calls = max_rows, max(calls * max_rows // rows, 1)
        elif not rows:
            return 0.0, 0
        latency = self._latency.get(operation)
        return inf if latency is None else latency.expected_s(rows), calls

    def learn(self, operation: str, rows: int, seconds: float) -> None:
        """Add the measurement of a warm-up batch; the batcher measures its own batches itself."""
        self._latency.setdefault(operation, LatencyModel()).learn(rows, seconds)
        self._service_rate.learn(operation, rows, seconds)

    @property
    def has_full_batch(self) -> bool:
        """Whether at least one full batch is queued."""
        return self._model_quota.rows >= self._max_batch_rows

    @property
    def waiting_rows(self) -> int:
        """Queued rows, without those of running batches."""
        return self._model_quota.rows

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the queued rows, as sent."""
        return self._model_quota.nbytes

    def waiting_by_operation(self) -> dict[str, int]:
        """Return the queued rows by operation, without empty queues. Safe from any thread."""
        with self._lock:
            return {name: queue.rows for name, queue in self._queue.queues.items() if queue.rows}

    def backlog(self) -> Backlog | None:
        """Return the unfinished work, None for an idle engine. Safe from any thread."""
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
        """Start the thread that runs the batches that are not executed inline."""
        self._thread = VitalThread(self._loop, name=f"engine-{self.name}")
        self._thread.start()

    def submit(
        self,
        operation: str,
        inputs: Inputs,
        deadline: float | None,
        done: Done,
        waited: bool = False,
    ) -> QueuedRequest:
        """Queue a request of at least one row.

        `deadline` is in monotonic seconds, or None. `done` is called once, from any thread, unless
        the request is cancelled. `waited`: it waited for room. Raises QueueFull, DeadlineExceeded
        or Unavailable if the request is refused; then `done` is never called.
        """
        now_ns = self._clock_ns()
        deadline_ns = NEVER_NS if deadline is None else deadline * 1e9
        request = QueuedRequest(self, operation, inputs, deadline_ns, done, now_ns)
        if deadline_ns <= now_ns:
            self._callbacks.refused(operation, "deadline")
            raise deadline_error()
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
            excess = self._queue.add(request, waited=waited)
            if excess is not None:
                if not waited:
                    self._callbacks.refused(operation, excess.reason)
                elapsed_s = (now_ns - self._started_ns) / 1e9
                raise self._admission.queue_full_error(excess, self._running, elapsed_s)
            idle, self._claimed = not self._claimed, True
            if self._delay_ns and not idle and self._is_due_earlier():
                self._wakeup.put(None)
        hook = self.inline_hook  # another thread may set it to None
        if idle and not (hook is not None and hook(self)):
            self.wake_thread()
        return request

    def wait_for_room(self, rows: int, nbytes: int, admit: Callable[[], bool]) -> RoomWaiter:
        """Call `admit`, from any thread, when a request of this size fits; see `room`."""
        return self.room.wait(RoomWaiter(self._model_quota, rows, nbytes, admit))

    def wake_thread(self) -> None:
        """Let the batcher's own thread run the queued requests, after the inline hook agreed to."""
        self._handed_to_thread = True
        self._wakeup.put(None)

    def cancel(self, request: QueuedRequest) -> None:
        """Drop a request without calling its callback; does nothing if it is completed."""
        with self._lock:
            if not request.completed:
                request.completed = True
                self._queue.remove(request)
                self._callbacks.dropped(request.operation, "cancelled")

    def shutdown(self) -> None:
        """Refuse new requests; the thread ends once the queue is empty. Does not block."""
        self._closed = True
        self._model_quota.ended = True
        self._wakeup.put(None)

    def close(self, *, timeout_s: float) -> None:
        """Shut down and wait up to `timeout_s`; then fail the queued requests with Unavailable."""
        self.shutdown()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._lock:
            remaining = list(self._queue)
        self._complete(remaining, Unavailable("the server stopped before the request ran"))

    def next_due_ns(self) -> float | None:
        """Return when the next batch is due, on the batcher's clock; None for an empty queue.

        The time may be in the past: a full batch is due at once, as is any batch without a delay.
        """
        with self._lock:
            if self._closed or not self._delay_ns:
                return 0.0 if self._model_quota.rows else None
            return self._queue.due_ns(self._max_batch_rows)

    def run_next(self) -> bool:
        """Run one batch on the calling thread; return False once no more batches are due.

        Only one thread at a time may call it: the batcher's own, or the one of the inline hook.
        """
        with self._lock:
            started_ns = self._clock_ns()
            due_only = self._delay_ns > 0 and not self._closed
            batch, expired = self._queue.pop_batch(
                self._max_batch_rows, started_ns, due_only=due_only
            )
            self._running, self._started_ns = batch, started_ns
            if batch is None:
                self._release_if_idle()
        if self.room.waiting:
            self.room.admit()
        for request in expired:
            self._callbacks.dropped(request.operation, "expired")
            self._complete([request], deadline_error(request.dequeued_rows, request.rows))
        if batch is None:
            return False
        engine_ns = self._executor.run(batch, started_ns, self._complete)
        if engine_ns is not None:
            self._record_batch(batch, engine_ns, self._clock_ns() - started_ns)
        with self._lock:
            self._running = None
            return not self._release_if_idle()

    def _release_if_idle(self) -> bool:
        """If the queue is empty, let the next request call the inline hook again. Under the lock.

        Return whether the queue is empty.
        """
        if self._model_quota.rows:
            return False
        self._claimed = False
        if self._closed:
            self._wakeup.put(None)
        return True

    def _record_batch(self, batch: Batch, engine_ns: int, total_ns: int) -> None:
        operation, _, rows = batch
        if operation not in self._latency:
            self._latency[operation] = LatencyModel()
        self._latency[operation].learn(rows, engine_ns / 1e9)
        # The callbacks are included, because the next batch waits for them, too.
        self._service_rate.learn(operation, rows, total_ns / 1e9)
        self._model_quota.rows_per_s = self._service_rate.rows_per_s

    def _loop(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._wakeup.get(timeout=self._sleep_s())
            if self._handed_to_thread or self._delay_ns:
                self._handed_to_thread = False
                while self.run_next():
                    pass
            with self._lock:
                if self._closed and not self._claimed:
                    return

    def _sleep_s(self) -> float | None:
        """Return how long the thread may wait, None for until it is woken."""
        if not self._delay_ns:
            return None
        with self._lock:
            due_ns = self.next_due_ns()
            self._wakeup_ns = NEVER_NS if due_ns is None else due_ns
        return None if due_ns is None else max(due_ns - self._clock_ns(), 0.0) / 1e9

    def _complete(self, requests: list[QueuedRequest], error: CallError | None) -> None:
        """Complete requests, each once; a failing callback does not affect other requests."""
        with self._lock:
            requests = [request for request in requests if not request.completed]
            for request in requests:
                request.completed = True
                if request.dequeued_rows < request.rows:
                    self._queue.remove(request)
        for request in requests:
            try:
                request.complete(error)
            except Exception:  # the other requests must complete all the same
                log.exception("%s: a completion callback failed", self.name)

    def _check_deadline(self, request: QueuedRequest) -> None:
        try:
            self._admission.check_deadline(request, self._running, self._started_ns)
        except DeadlineExceeded:
            self._callbacks.refused(request.operation, "deadline")
            raise

    def _is_due_earlier(self) -> bool:
        due_ns = self._queue.due_ns(self._max_batch_rows)
        return due_ns is not None and due_ns < self._wakeup_ns
