"""Short batches, run on the thread that polls: no second thread has to be woken for them.

To wake the engine's thread and to take turns with it for Python's lock costs more than a
small model. So the polling thread takes the work that its own events brought, reads what
else has arrived, and then runs it: batches are as large as what came in the meantime. What
takes longer is left to the engine's thread, because nothing is received, refused or
cancelled while a batch runs here.
"""

from __future__ import annotations

import threading
from collections import deque

from latentserve_server.batcher import Batcher

LIMIT_S = 0.001
"""A batch that is expected to take longer runs on the engine's own thread."""


class InlineBatches:
    """The batchers whose work the polling thread has taken, in turns.

    Args:
        limit_s: of a batch.
    """

    __slots__ = ("_limit_s", "_thread", "_waiting")

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
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
            self._waiting.popleft().hand_over()

    def take(self, batcher: Batcher) -> bool:
        """Answer a batcher's offer; see `Batcher`."""
        if threading.get_ident() != self._thread or batcher.expected_s > self._limit_s:
            return False
        self._waiting.append(batcher)
        return True

    @property
    def due(self) -> bool:
        """Whether the next batch is full: reading on would not make it larger."""
        waiting = self._waiting
        return bool(waiting) and waiting[0].is_full

    def run(self) -> None:
        """Run one batch of the batcher whose turn it is."""
        batcher = self._waiting.popleft()
        if batcher.expected_s > self._limit_s:
            batcher.hand_over()
        elif batcher.run_next():
            self._waiting.append(batcher)
