"""Callbacks for the events of a batcher, and a summary of its unfinished work."""

from __future__ import annotations

from typing import NamedTuple

REFUSED = ("queue_full", "total_full", "deadline", "unloading")
"""Reasons for a refusal: the model's queue is full, all queues together are full, the deadline
cannot be met, the model is being unloaded."""
DROPPED = ("cancelled", "expired")
"""Reasons why an admitted request is dropped."""


class BatcherCallbacks:
    """Methods that a batcher calls on its events, from any thread; these do nothing.

    An override must be fast and must not raise.
    """

    def waited(self, operation: str, seconds: float) -> None:
        """The first rows of a request left the queue after `seconds`."""

    def ran(self, operation: str, rows: int, seconds: float) -> None:
        """The engine ran a batch in `seconds`."""

    def padded(self, operation: str, rows: int) -> None:
        """The engine added `rows` rows of padding to a batch."""

    def halved(self, operation: str) -> None:
        """The device had no memory for a batch; the batcher runs it in two halves."""

    def failed(self, operation: str) -> None:
        """The engine failed for one request."""

    def not_finite(self, operation: str) -> None:
        """The model gave NaN or infinite values for one request, which failed."""

    def refused(self, operation: str, reason: str) -> None:
        """A request was refused; `reason` is one of `REFUSED`."""

    def dropped(self, operation: str, reason: str) -> None:
        """An admitted request was dropped; `reason` is one of `DROPPED`."""


class Backlog(NamedTuple):
    """The unfinished work of a batcher.

    `operation` is the operation of the running batch, or of the first queued request if none runs.
    `stalled_s` is the shorter of the time since the last batch finished and the time since the
    batcher last became busy.
    """

    operation: str
    running_rows: int
    waiting_rows: int
    stalled_s: float
