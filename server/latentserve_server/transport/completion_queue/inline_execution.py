"""Inline execution of short batches on the polling thread.

Waking the engine's thread and switching Python's lock to it costs more than a small model's
inference. So the polling thread takes the work of its own events, reads all events that have
arrived meanwhile, and then runs the batch with the rows of all of them.

While a batch runs here, no call is received, refused or cancelled. This costs throughput if the
batch takes long compared to the polling thread's work for its calls. So a batch may take a short
fixed time, plus some time for each of its calls. If only one call is in flight, the polling
thread has nothing else to do, and the limit is higher. `inline_policy` has the limits, and
docs/performance.md the measurements.
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

    __slots__ = ("_in_flight", "_policy", "_thread", "_waiting")

    def __init__(self, in_flight: Callable[[], int], policy: InlinePolicy | None = None) -> None:
        self._in_flight = in_flight
        self._policy = InlinePolicy() if policy is None else policy
        self._thread = 0
        self._waiting: deque[Batcher] = deque()

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

    def run(self) -> None:
        """Run one batch of the next batcher."""
        batcher = self._waiting.popleft()
        if not self._is_short(batcher):
            batcher.wake_thread()
        elif batcher.run_next():
            self._waiting.append(batcher)

    def _is_short(self, batcher: Batcher) -> bool:
        self._policy.update()
        seconds, calls = batcher.estimate_next_batch()
        return self._policy.allows(seconds, calls, self._in_flight())
