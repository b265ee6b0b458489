"""Policy for inline execution: time limits scaled to the machine's current Python speed.

The polling thread's cost of a call is the cost of Python code, and the speed of a shared machine
can halve within a minute. So a fixed piece of Python is timed at the start, and then every
quarter of a second, which takes less than a thousandth of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Limits in units of the timed piece of Python.
_BATCH_UNITS, _CALL_UNITS, _MAX_UNITS = 2.0, 0.45, 40.0
_TRIALS = 20
_TRIAL_INTERVAL_S = 0.25
# A slower trial usually means that another process interrupted it, seldom that the machine has
# become slower.
_WEIGHT_FASTER = 0.3
_WEIGHT_SLOWER = 0.05
_MAX_SLOWDOWN = 2.0


@dataclass(frozen=True)
class Limits:
    """Largest expected duration of a batch for inline execution, in seconds.

    Attributes:
        batch_s: fixed part for any batch.
        call_s: additional part for each call of the batch.
        max_s: limit if only one call is in flight, and upper bound otherwise.
    """

    batch_s: float
    call_s: float
    max_s: float

    @classmethod
    def of(cls, unit_s: float) -> Limits:
        """Return the limits of a machine that takes `unit_s` for the timed piece of Python."""
        return cls(_BATCH_UNITS * unit_s, _CALL_UNITS * unit_s, _MAX_UNITS * unit_s)


class InlinePolicy:
    """Current limits for inline execution. Not thread-safe.

    Args:
        trial: runs the timed piece of Python and returns its duration in seconds.
        clock: returns monotonic seconds.
    """

    __slots__ = ("_clock", "_next_trial_s", "_trial", "_unit_s", "limits")

    def __init__(
        self,
        trial: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trial = trial or time_python
        self._clock = clock
        self._unit_s = min(self._trial() for _ in range(_TRIALS))
        self._next_trial_s = clock() + _TRIAL_INTERVAL_S
        self.limits = Limits.of(self._unit_s)

    def update(self) -> None:
        """Run a trial and update the limits, if the last trial is older than the interval."""
        now_s = self._clock()
        if now_s < self._next_trial_s:
            return
        self._next_trial_s = now_s + _TRIAL_INTERVAL_S
        before_s = self._unit_s
        seconds = min(self._trial(), _MAX_SLOWDOWN * before_s)
        weight = _WEIGHT_FASTER if seconds < before_s else _WEIGHT_SLOWER
        self._unit_s = before_s + (seconds - before_s) * weight
        self.limits = Limits.of(self._unit_s)

    def allows(self, seconds: float, calls: int, in_flight: int) -> bool:
        """Return whether a batch of this expected duration and number of calls may run inline."""
        limits = self.limits
        if seconds > limits.max_s:
            return False
        return in_flight <= 1 or seconds <= limits.batch_s + limits.call_s * calls


def time_python() -> float:
    """Run a fixed piece of Python and return its seconds: 50 to 100 µs on servers of 2024."""
    started_s = time.perf_counter()
    seen: dict[int, tuple[int, str]] = {}
    for number in range(1000):
        seen[number & 15] = (number, str(number))
    return time.perf_counter() - started_s
