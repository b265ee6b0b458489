"""Periodic end of calls that are overdue.

gRPC core ends a call at its deadline. It does not end a call without one, nor a call whose client
answers pings and never reads the reply. Both would hold their memory for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

log = logging.getLogger(__name__)

ENDED = ("max_call", "reader_idle")
"""Reasons for which a call is ended: it has no deadline and took longer than --max-call-s; its
client has not read a reply for --reader-idle-s."""
MARGIN_S = 1.0
"""A call is ended this long after its latest time, since queued requests expire by themselves."""
_LONGEST_INTERVAL_S = 5.0


class OverdueCall(Protocol):
    """A call in flight."""

    def end_if_overdue(self, now_s: float, reader_idle_s: float) -> str:
        """End the call if it is overdue; return the reason, one of `ENDED`, or ""."""


async def end_overdue_calls(
    calls: Callable[[], Iterable[OverdueCall]],
    *,
    reader_idle_s: float,
    max_call_s: float | None,
    on_ended: Callable[[str], object],
) -> None:
    """Check the calls in flight every few seconds, until cancelled.

    `calls` returns a copy of the calls in flight; `on_ended` gets the reason of each ended call.
    """
    interval_s = min(reader_idle_s / 4, (max_call_s or inf) / 4, _LONGEST_INTERVAL_S)
    while True:
        await asyncio.sleep(interval_s)
        now_s = time.monotonic()
        ended: dict[str, int] = {}
        for call in calls():
            try:
                reason = call.end_if_overdue(now_s, reader_idle_s)
            except Exception:  # of one call, which must not affect the others
                log.exception("an overdue call could not be ended")
                continue
            if reason:
                on_ended(reason)
                ended[reason] = ended.get(reason, 0) + 1
        for reason, count in ended.items():
            why = (
                f"not read for {reader_idle_s:g} s (--reader-idle-s)"
                if reason == "reader_idle"
                else f"without a deadline, longer than {max_call_s:g} s (--max-call-s)"
            )
            log.warning("ended calls: %d, %s", count, why)
