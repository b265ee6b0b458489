"""Short batches, run on the thread that polls: no second thread has to be woken for them.

To wake the engine's thread and to take turns with it for Python's lock costs more than a
small model. So the polling thread takes the work that its own events brought, reads what
else has arrived, and then runs it: batches are as large as what came in the meantime.

Nothing is received, refused or cancelled while a batch runs here. That is a loss where a
second thread would have run the batch meanwhile, and the larger the longer it takes beside
what its calls cost the polling thread. So the limit is a short time, and some more for each
call in the batch. Where only one call is in flight there is nothing to do meanwhile, and it
may take longer. What calls cost depends on how fast this machine runs Python, so that is
measured and the limits are in proportion. docs/figures.md has what came of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from latentserve_server.batcher import Batcher

_BATCH_UNITS, _CALL_UNITS, _MOST_UNITS = 3.0, 0.3, 20.0
_TRIALS = 20


@dataclass(frozen=True)
class Limits:
    """A batch that is expected to take longer runs on the engine's own thread.

    Attributes:
        batch_s: how long it may take,
        call_s: and so much more for each of its calls.
        most_s: how long the batch of the only call in flight may take, and any other at most.
    """

    batch_s: float
    call_s: float
    most_s: float

    @classmethod
    def of_this_machine(cls) -> Limits:
        """Return those that suit the speed of Python here; takes some milliseconds."""
        unit_s = min(_seconds_of_some_python() for _ in range(_TRIALS))
        return cls(_BATCH_UNITS * unit_s, _CALL_UNITS * unit_s, _MOST_UNITS * unit_s)


NO_BATCHES = Limits(0.0, 0.0, 0.0)


def _seconds_of_some_python() -> float:
    """Return how long a fixed piece of work takes: 50 to 100 µs on servers of 2024."""
    started_s = time.perf_counter()
    seen: dict[int, tuple[int, str]] = {}
    for number in range(1000):
        seen[number & 15] = (number, str(number))
    return time.perf_counter() - started_s


def _many() -> int:
    return 2**62


class InlineBatches:
    """The batchers whose work the polling thread has taken, in turns.

    Args:
        in_flight: the calls that the server has; by default as if always many.
        limits: of a batch; by default those that suit this machine.
    """

    __slots__ = ("_in_flight", "_limits", "_thread", "_waiting")

    def __init__(self, in_flight: Callable[[], int] = _many, limits: Limits | None = None) -> None:
        self._in_flight = in_flight
        self._limits = Limits.of_this_machine() if limits is None else limits
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
        if threading.get_ident() != self._thread or not self._is_short(batcher):
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
        if not self._is_short(batcher):
            batcher.hand_over()
        elif batcher.run_next():
            self._waiting.append(batcher)

    def _is_short(self, batcher: Batcher) -> bool:
        seconds, calls = batcher.forecast()
        limits = self._limits
        if seconds > limits.most_s:
            return False
        return seconds <= limits.batch_s + limits.call_s * calls or self._in_flight() <= 1
