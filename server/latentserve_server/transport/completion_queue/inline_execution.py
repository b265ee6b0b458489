"""Inline execution of short batches on the polling thread.

Waking the engine's thread and switching Python's lock to it costs more than a small model's
inference. So the polling thread takes the work of its own events, reads all events that have
arrived meanwhile, and then runs the batch with the rows of all of them.

While a batch runs here, no call is received, refused or cancelled. This costs throughput if the
batch takes long compared to the polling thread's work for its calls. So a batch may take a short
fixed time, plus some time for each of its calls. If only one call is in flight, the polling
thread has nothing else to do, and the limit is higher. `inline_policy` has the limits, and
docs/performance.md the measurements.

A batch may take much longer than expected: a graph may loop for ever on certain inputs. Then the
batch is left to its thread, and another thread polls on (see `poller`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from latentserve_server.batching.batcher import Batcher
from latentserve_server.transport.completion_queue.inline_policy import InlinePolicy


class InlineExecution:
    """Round-robin over the batchers that the polling thread has taken.

    Args:
        in_flight: returns the number of calls in flight.
        policy: decides which batches run here; by default from the speed of this machine.
    """

    __slots__ = ("_checks", "_in_flight", "_lock", "_policy", "_running", "_thread", "_waiting")

    def __init__(self, in_flight: Callable[[], int], policy: InlinePolicy | None = None) -> None:
        self._in_flight = in_flight
        self._policy = InlinePolicy() if policy is None else policy
        self._thread = 0
        self._waiting: deque[Batcher] = deque()
        self._running: Batcher | None = None
        self._checks = 0  # of the running batch, by `give_up_overdue`
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self) -> None:
        """Accept batchers from the calling thread from now on."""
        self._thread = threading.get_ident()

    def end(self) -> None:
        """Accept no more batchers, and wake the threads of those accepted."""
        self._thread = 0
        while self._waiting:
            self._waiting.popleft().wake_thread()

    def take(self, batcher: Batcher) -> bool:
        """Accept or decline a batcher; this is the `inline_hook` of `Batcher`."""
        if threading.get_ident() != self._thread or not self._is_short(batcher):
            return False
        self._waiting.append(batcher)
        return True

    @property
    def due(self) -> bool:
        """Whether the next batch is full, so that more events would not make it larger."""
        waiting = self._waiting
        return bool(waiting) and waiting[0].has_full_batch

    def run(self) -> bool:
        """Run one batch of the next batcher; return False if the calling thread must end.

        This is the case if the batch was given up meanwhile: another thread polls and runs batches.
        """
        batcher = self._waiting.popleft()
        if not self._is_short(batcher):
            batcher.wake_thread()
            return True
        self._running = batcher
        more = batcher.run_next()
        with self._lock:
            given_up = self._running is not batcher
            if not given_up:
                self._running, self._checks = None, 0
        if given_up:
            if more:
                batcher.wake_thread()
            return False
        if more:
            self._waiting.append(batcher)
        return True

    def give_up_overdue(self, checks: int) -> Batcher | None:
        """Give up the running batch at the given number of calls during it; return its batcher.

        Then the polling thread accepts no more batchers and ends after the batch, and another
        thread may call `begin`. The batcher is not executed inline again. Counting calls and not
        seconds, the caller cannot mistake a pause of the whole process for a batch that hangs.
        """
        with self._lock:
            batcher = self._running
            if batcher is None:
                return None
            self._checks += 1
            if self._checks < checks:
                return None
            self._running, self._checks, self._thread = None, 0, 0
        batcher.inline_hook = None
        return batcher

    def _is_short(self, batcher: Batcher) -> bool:
        self._policy.update()
        seconds, calls = batcher.estimate_next_batch()
        return self._policy.allows(seconds, calls, self._in_flight())
