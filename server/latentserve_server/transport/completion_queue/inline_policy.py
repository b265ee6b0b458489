"""Which batches are short: in proportion to what Python costs on this machine, now.

What a call costs the thread that receives it is Python's work, and a shared machine can be half
as fast in a minute as it is now. So a fixed piece of Python is timed at the start and again
every quarter of a second, which takes less than a thousandth of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_BATCH_UNITS, _CALL_UNITS, _MOST_UNITS = 2.0, 0.45, 40.0
_TRIALS = 20
_EVERY_S = 0.25
# A trial takes longer than the one before because something came between, and seldom because
# the machine became slower.
_WEIGHT_FASTER = 0.3
_WEIGHT_SLOWER = 0.05
_MOST_SLOWER = 2.0


@dataclass(frozen=True)
class Limits:
    """Seconds that a batch may be expected to take, to be short.

    Attributes:
        batch_s: of any batch,
        call_s: and so much more for each of its calls.
        most_s: of the only call in flight, and of any other at most.
    """

    batch_s: float
    call_s: float
    most_s: float

    @classmethod
    def of(cls, unit_s: float) -> Limits:
        """Return those of a machine that takes `unit_s` for the fixed piece of Python."""
        return cls(_BATCH_UNITS * unit_s, _CALL_UNITS * unit_s, _MOST_UNITS * unit_s)


class InlinePolicy:
    """The limits as they are now. For one thread.

    Args:
        trial: does the fixed piece of work and returns the seconds that it took.
        clock: monotonic seconds.
    """

    __slots__ = ("_again_s", "_clock", "_trial", "_unit_s", "limits")

    def __init__(
        self,
        trial: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trial = trial or seconds_of_some_python
        self._clock = clock
        self._unit_s = min(self._trial() for _ in range(_TRIALS))
        self._again_s = clock() + _EVERY_S
        self.limits = Limits.of(self._unit_s)

    def keep_up(self) -> None:
        """Time the machine again, where that was long ago."""
        now_s = self._clock()
        if now_s < self._again_s:
            return
        self._again_s = now_s + _EVERY_S
        before_s = self._unit_s
        seconds = min(self._trial(), _MOST_SLOWER * before_s)
        weight = _WEIGHT_FASTER if seconds < before_s else _WEIGHT_SLOWER
        self._unit_s = before_s + (seconds - before_s) * weight
        self.limits = Limits.of(self._unit_s)

    def has(self, seconds: float, calls: int, in_flight: int) -> bool:
        """Return whether a batch of so many seconds and calls is short."""
        limits = self.limits
        if seconds > limits.most_s:
            return False
        return in_flight <= 1 or seconds <= limits.batch_s + limits.call_s * calls


def seconds_of_some_python() -> float:
    """Do a fixed piece of work; return how long it took: 50 to 100 µs on servers of 2024."""
    started_s = time.perf_counter()
    seen: dict[int, tuple[int, str]] = {}
    for number in range(1000):
        seen[number & 15] = (number, str(number))
    return time.perf_counter() - started_s
