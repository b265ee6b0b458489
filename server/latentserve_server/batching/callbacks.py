"""What a batcher tells of itself."""

from __future__ import annotations

from typing import NamedTuple

REFUSED = ("queue_full", "total_full", "deadline", "unloading")
"""Why requests are not admitted: its own queue, all queues together, the deadline, a model that
ends."""
DROPPED = ("cancelled", "expired")
"""Why requests that were admitted end before their answer."""


class BatcherCallbacks:
    """Hears of what happens in a batcher; this one does nothing. Must be quick and not fail."""

    def waited(self, operation: str, seconds: float) -> None:
        """A request's first rows left the queue."""

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        """The engine ran a batch."""

    def padded(self, operation: str, rows: int) -> None:
        """The engine ran a batch with so many rows of padding."""

    def halved(self, operation: str) -> None:
        """The device had no memory for a batch, and it is run in two halves."""

    def failed(self, operation: str) -> None:
        """The engine failed for one request."""

    def refused(self, operation: str, reason: str) -> None:
        """A request was not admitted; the reason is one of `REFUSED`."""

    def dropped(self, operation: str, reason: str) -> None:
        """A request ended before its answer; the reason is one of `DROPPED`."""


class Backlog(NamedTuple):
    """Work that has no answer yet.

    `operation` is what is running, or first in the queue where nothing is. `stalled_s` is the
    time since a batch finished, or since there is work at all, whichever is shorter.
    """

    operation: str
    running_rows: int
    waiting_rows: int
    stalled_s: float
