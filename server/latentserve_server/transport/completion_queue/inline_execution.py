"""Short batches, run on the thread that polls: no second thread has to be woken for them.

To wake the engine's thread and to take turns with it for Python's lock costs more than a
small model. So the polling thread takes the work that its own events brought, reads what
else has arrived, and then runs it: batches are as large as what came in the meantime.

Nothing is received, refused or cancelled while a batch runs here. That is a loss where a
second thread would have run the batch meanwhile, and the larger the longer it takes beside
what its calls cost the polling thread. So the limit is a short time, and some more for each
call in the batch. Where only one call is in flight there is nothing to do meanwhile, and it
may take longer: `short_batches` has the limits, and docs/figures.md what came of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from latentserve_server.batching.batcher import Batcher
from latentserve_server.transport.completion_queue.inline_policy import InlinePolicy


class InlineExecution:
    """The batchers whose work the polling thread has taken, in turns.

    Args:
        in_flight: the calls that the server has.
        short: the batches to run here; by default those that this machine's speed makes short.
    """

    __slots__ = ("_in_flight", "_short", "_thread", "_waiting")

    def __init__(self, in_flight: Callable[[], int], short: InlinePolicy | None = None) -> None:
        self._in_flight = in_flight
        self._short = InlinePolicy() if short is None else short
        self._thread = 0
        self._waiting: deque[Batcher] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self) -> None:
        """Take offers made on the calling thread from now on."""
        self._thread = threading.get_ident()

    def end(self) -> None:
        """Take no more; what was taken goes to the threads of the engines."""
        self._thread = 0
        while self._waiting:
            self._waiting.popleft().wake_thread()

    def take(self, batcher: Batcher) -> bool:
        """Answer a batcher's offer; see `Batcher`."""
        if threading.get_ident() != self._thread or not self._is_short(batcher):
            return False
        self._waiting.append(batcher)
        return True

    @property
    def due(self) -> bool:
        """Whether the next batch is full: reading on would not make it larger."""
        waiting = self._waiting
        return bool(waiting) and waiting[0].has_full_batch

    def run(self) -> None:
        """Run one batch of the batcher whose turn it is."""
        batcher = self._waiting.popleft()
        if not self._is_short(batcher):
            batcher.wake_thread()
        elif batcher.run_next():
            self._waiting.append(batcher)

    def _is_short(self, batcher: Batcher) -> bool:
        self._short.keep_up()
        seconds, calls = batcher.estimate_next_batch()
        return self._short.has(seconds, calls, self._in_flight())
