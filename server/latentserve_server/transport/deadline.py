"""Conversion of wall-clock deadlines to the monotonic clock, safe against clock changes.

gRPC core keeps a deadline on the monotonic clock, and enforces it there. grpcio's Python layer
exposes it as a wall-clock time, which is converted back here. If the wall clock is set between
the two conversions, the result would be hours off. The server's own deadline only saves work for
expired calls, so after a change of the wall clock the call gets none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_FOREVER_S = 1e9  # gRPC core gives a call without a deadline one that is centuries away
_CLOCK_CHANGE_S = 0.1  # larger differences mean that the wall clock was set


class WallClock:
    """Converter that tracks the offset between the wall clock and the monotonic clock.

    Args:
        wall: returns wall-clock seconds.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()

    def deadline(self, moment: float) -> float | None:
        """Return a wall-clock time as monotonic seconds; None for no or an unreliable deadline.

        `moment` must have been read just before, and after the previous call of this method.
        """
        wall, now = self._wall(), self._monotonic()
        remaining_s = moment - wall
        offset_s, self._offset_s = self._offset_s, wall - now
        if remaining_s > _FOREVER_S or abs(self._offset_s - offset_s) > _CLOCK_CHANGE_S:
            return None
        return now + remaining_s

    def deadline_in(self, remaining_s: float | None) -> float | None:
        """Return the same for the remaining seconds, which grpcio computes from the wall clock."""
        return None if remaining_s is None else self.deadline(self._wall() + remaining_s)
