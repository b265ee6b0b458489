"""Deadlines that grpcio gives as times of day, while somebody may set the clock.

gRPC's core keeps a deadline on the monotonic clock, and ends a call by it whatever the time of
day. grpcio's Python layer shows it to us as a time of day, and we turn that back. A clock that is
set between the two would let a call expire hours early. Nothing is lost without a deadline of our
own, which only spares the engine work for nobody: where the clock has just been set, there is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_FOREVER_S = 1e9  # a call without a deadline has one centuries away
_SET_S = 0.1


class WallClock:
    """Watches how far the time of day is from the monotonic clock.

    Args:
        wall: seconds of the day's clock.
        monotonic: seconds of the monotonic one.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._apart_s = wall() - monotonic()

    def deadline(self, moment: float) -> float | None:
        """Return a time of day on the monotonic clock; None for none, or for one not to trust.

        It must have been read a moment ago, and since the last call of this method, if ever.
        """
        wall, now = self._wall(), self._monotonic()
        remaining_s = moment - wall
        apart_s, self._apart_s = self._apart_s, wall - now
        if remaining_s > _FOREVER_S or abs(self._apart_s - apart_s) > _SET_S:
            return None
        return now + remaining_s

    def deadline_in(self, remaining_s: float | None) -> float | None:
        """Return the same for the seconds that are left, which were read off a time of day."""
        return None if remaining_s is None else self.deadline(self._wall() + remaining_s)
