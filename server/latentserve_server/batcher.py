"""Merges what waits into batches, and gives every caller exactly its own rows.

One batcher and one thread per engine. By default there is no timer: an idle engine takes what
is there at once, and while it runs the next batch fills, so a single caller pays no delay
and batches grow by themselves with the load. With a `max_delay_s`, a batch that is not full
waits so long at most since its first request came.

* Admission is by rows and bytes into bounded queues (`budget`); a full one refuses at once.
* A request that will be too late when its turn comes is refused at once (`drain_rate`).
* A batch holds rows of one operation. A request larger than a batch runs in several.
* Cancelled callers leave the queue at once, expired ones when a batch is cut; the engine
  never runs for either. Those that run already get their answer, however late.
* A batch that fails is run again in parts (`execution`, `recovery`), so that a bad caller fails
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

from latentserve_server.budget import Budget, Excess
from latentserve_server.drain_rate import DrainRate
from latentserve_server.errors import CallError, DeadlineExceeded, QueueFull, Unavailable
from latentserve_server.execution import Execution, Runner
from latentserve_server.observer import Backlog, Observer
from latentserve_server.row_queue import Batch, RowQueue
from latentserve_server.ticket import NEVER_NS, Completion, Done, Rows, Ticket

__all__ = ["Backlog", "Batcher", "Observer", "Runner"]

log = logging.getLogger(__name__)

_DOUBT = 2.0
"""How much shorter than forecast a wait may turn out, and how much longer a run.

A caller who is refused wrongly is harmed; one who is admitted wrongly only waits in vain.
"""


class Batcher:
    """A bounded queue in front of one engine.

    Args:
        runner: runs the batches.
        name: of the thread and in the log.
        max_batch_rows: rows of one batch, at most.
        queue_rows, queue_bytes: what may wait, at most; see `budget` for what is counted.
        max_delay_s: seconds that a batch may wait to be filled.
        budget: what may wait for this and other models together.
        observer: told of what happens, from any thread.
        clock_ns: monotonic nanoseconds; deadlines are seconds on the same clock.
        wake: called, from the thread that submits, for every request that was admitted;
            whoever is woken calls `run_next` until it returns False. None: `start` makes a
            thread that does. With a delay there is always a thread, since somebody must wait.
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
        budget: Budget | None = None,
        observer: Observer | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wake: Callable[[Batcher], None] | None = None,
    ) -> None:
        self._name = name
        self._max_batch_rows = max_batch_rows
        self._delay_ns = int(max_delay_s * 1e9)
        self._wake = None if self._delay_ns else wake
        self._observer = observer or Observer()
        self._clock_ns = clock_ns
        self._share = (budget or Budget()).share(max_rows=queue_rows, max_bytes=queue_bytes)
        self._queue = RowQueue(self._share)
        self._drain = DrainRate(max_batch_rows)
        self._execution = Execution(
            runner,
            name=name,
            max_batch_rows=max_batch_rows,
            observer=self._observer,
            clock_ns=clock_ns,
        )
        self._lock = threading.RLock()
        self._running: Batch | None = None
        self._cut_ns = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        # The thread sleeps on the bell while `_asleep` says so. Unlike a condition it can be rung
        # without a lock, so `end` may come from a finalizer, which runs anywhere.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False
        self._wakes_ns = NEVER_NS

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue, those of running batches not counted."""
        return self._share.rows

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows in the queue, as they were sent."""
        return self._share.nbytes

    def backlog(self) -> Backlog | None:
        """Return the work that there is, None for an idle engine. Safe from any thread."""
        with self._lock:
            running, waiting_rows = self._running, self._share.rows
            if running is not None:
                operation, running_rows = running.operation, running.rows
            elif waiting_rows:
                operation, running_rows = next(iter(self._queue)).operation, 0
            else:
                return None
            stalled_ns = self._clock_ns() - self._execution.progress_ns
        return Backlog(operation, running_rows, waiting_rows, stalled_ns / 1e9)

    def start(self) -> None:
        """Start the thread that runs the batches, unless somebody else is woken to do it."""
        if self._wake is not None:
            return
        self._thread = threading.Thread(target=self._loop, name=f"engine-{self._name}", daemon=True)
        self._thread.start()

    def submit(
        self, operation: str, inputs: tuple[Rows, ...], deadline: float | None, done: Done
    ) -> Ticket:
        """Queue a request of at least one row.

        `deadline` is in seconds on the monotonic clock, or None. `done` is called once, from any
        thread, unless the request is cancelled. Raises QueueFull, DeadlineExceeded or Unavailable
        at once, and then `done` is never called.
        """
        now_ns = self._clock_ns()
        deadline_ns = NEVER_NS if deadline is None else deadline * 1e9
        ticket = Ticket(self, operation, inputs, deadline_ns, done, now_ns)
        if deadline_ns <= now_ns:
            self._observer.refused("deadline")
            raise _too_late()
        with self._lock:
            if self._closed:
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1.0)
            if self._running is None and not self._share.rows:
                self._execution.progress_ns = now_ns
            elif deadline is not None:
                self._check_deadline(ticket)
            if self._delay_ns:
                ticket.due_ns = self._due_ns(ticket)
            excess = self._queue.add(ticket)
            if excess is not None:
                self._observer.refused("total_full" if excess.of_all else "queue_full")
                raise self._full(excess)
            if self._asleep and (not self._delay_ns or self._is_due_earlier()):
                self._asleep = False
                self._bell.put(None)
        if self._wake is not None:
            self._wake(self)
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Drop a request without an answer; nothing happens if it has its answer already."""
        with self._lock:
            if not ticket.settled:
                ticket.settled = True
                self._queue.leave(ticket)
                self._observer.dropped(ticket.operation, "cancelled")

    def end(self) -> None:
        """Accept nothing more; the thread ends once it has run what waits. Does not block."""
        self._closed = True
        self._share.ended = True
        self._bell.put(None)

    def close(self, *, timeout_s: float) -> None:
        """End, and wait for it; what still waits after `timeout_s` gets Unavailable."""
        self.end()
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
                return 0.0 if self._share.rows else None
            return self._queue.due_ns(self._max_batch_rows)

    def run_next(self) -> bool:
        """Cut one batch and run it on the calling thread; False where none was due.

        The engine's thread calls this for ever; tests call it by hand.
        """
        with self._lock:
            cut_ns = self._clock_ns()
            due_only = self._delay_ns > 0 and not self._closed
            batch, expired = self._queue.cut(self._max_batch_rows, cut_ns, due_only=due_only)
            self._running, self._cut_ns = batch, cut_ns
        for ticket in expired:
            self._observer.dropped(ticket.operation, "expired")
            self._settle([ticket], _too_late(ticket.cut_rows, ticket.rows))
        if batch is None:
            return bool(expired)
        if self._execution.run(batch, cut_ns, self._settle):
            # The answers are part of it: the next batch waits for them too.
            seconds = (self._clock_ns() - cut_ns) / 1e9
            self._drain.learn(batch.operation, batch.rows, seconds)
            self._share.rows_per_s = self._drain.rows_per_s
        self._running = None
        return True

    def _loop(self) -> None:
        while True:
            timeout_s = None
            with self._lock:
                due_ns = self.next_due_ns()
                if due_ns is None and self._closed:
                    return
                now_ns = self._clock_ns()
                self._asleep = asleep = due_ns is None or due_ns > now_ns
                self._wakes_ns = NEVER_NS if due_ns is None else due_ns
                if due_ns is not None:
                    timeout_s = (due_ns - now_ns) / 1e9
            if asleep:
                with contextlib.suppress(queue.Empty):
                    self._bell.get(timeout=timeout_s)
            else:
                self.run_next()

    def _settle(self, tickets: list[Ticket], error: CallError | None) -> None:
        """Answer requests, each once; a callback that fails harms nobody else."""
        with self._lock:
            tickets = [ticket for ticket in tickets if not ticket.settled]
            for ticket in tickets:
                ticket.settled = True
                if ticket.cut_rows < ticket.rows:
                    self._queue.leave(ticket)
        for ticket in tickets:
            completion = Completion(
                ticket.outputs if error is None else (),
                error,
                ticket.queue_ns,
                ticket.compute_ns,
                ticket.batch_rows,
            )
            try:
                ticket.done(completion)
            except Exception:  # the next caller's answer must not depend on it
                log.exception("%s: a completion callback failed", self._name)

    def _check_deadline(self, ticket: Ticket) -> None:
        """Raise DeadlineExceeded where the wait will be longer, by far, than there is time."""
        drain, lines, now_ns = self._drain, self._queue.lines, ticket.submitted_ns
        left_s = _DOUBT * (ticket.deadline_ns - now_ns) / 1e9
        # First what it cannot be longer than: the running batch, the full ones, the last of each.
        most = self._share.rows // self._max_batch_rows + 1 + len(lines)
        if most * drain.slowest_s <= left_s:
            return
        wait_s = drain.rest_s(self._running, (now_ns - self._cut_ns) / 1e9)
        wait_s += drain.ahead_s(ticket.operation, lines)
        if wait_s > left_s:
            self._observer.refused("deadline")
            raise DeadlineExceeded(
                f"the deadline is in {left_s / _DOUBT:.3g} s and {self._share.rows} rows wait "
                f"already, for about {wait_s:.3g} s; the model did not run. "
                "Allow more time, or send fewer requests at once"
            )

    def _is_due_earlier(self) -> bool:
        due_ns = self._queue.due_ns(self._max_batch_rows)
        return due_ns is not None and due_ns < self._wakes_ns

    def _due_ns(self, ticket: Ticket) -> float:
        """Return when a request's batch must go: in time for its deadline, at once if need be."""
        due_ns = ticket.submitted_ns + self._delay_ns
        if ticket.deadline_ns == NEVER_NS:
            return due_ns
        slowest_ns = self._drain.slowest_s * 1e9
        if not slowest_ns:  # nobody knows how long it will run
            return due_ns if ticket.deadline_ns > due_ns else ticket.submitted_ns
        return min(due_ns, max(ticket.deadline_ns - _DOUBT * slowest_ns, ticket.submitted_ns))

    def _full(self, excess: Excess) -> QueueFull:
        """Return the error, with the time until this request, not all that waits, has its place."""
        if excess.of_all:
            return excess.error(self._name, self._share.drain_s(excess))
        if not self._drain.slowest_s:
            return excess.error(self._name, None)
        rows = excess.over
        if excess.in_bytes and excess.waiting:
            rows = -(-excess.over * self._share.rows // excess.waiting)
        elapsed_s = (self._clock_ns() - self._cut_ns) / 1e9
        rest_s = self._drain.rest_s(self._running, elapsed_s)
        return excess.error(self._name, rest_s + self._drain.leave_s(rows, self._queue.lines))


def _too_late(cut_rows: int = 0, rows: int = 0) -> DeadlineExceeded:
    ran = f"only {cut_rows} of {rows} rows ran" if cut_rows else "the model did not run"
    return DeadlineExceeded(
        f"the deadline passed while the request waited; {ran}. "
        "Allow more time, or send fewer requests at once"
    )
