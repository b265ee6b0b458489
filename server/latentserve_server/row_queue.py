"""The bounded queue of one engine, and how a batch is cut from it.

Not safe for threads by itself: the batcher holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from latentserve_server.ticket import Ticket


class Slice(NamedTuple):
    """Rows `start` to `stop` of a request, part of one batch."""

    ticket: Ticket
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start


class Batch(NamedTuple):
    """What the engine runs at once: rows of one operation."""

    operation: str
    slices: list[Slice]
    rows: int


class RowQueue:
    """Requests in order of arrival, per operation, bounded by their rows together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting_rows = 0
        # A dict, so that a cancelled request leaves in O(1).
        self._queues: dict[str, OrderedDict[Ticket, None]] = {}

    def __iter__(self) -> Iterator[Ticket]:
        """Every request that has rows left to run."""
        for queue in self._queues.values():
            yield from queue

    def next_operation(self) -> str:
        """Return the operation of the next batch, "" where nothing waits."""
        heads = [
            (next(iter(queue)).submitted_ns, operation)
            for operation, queue in self._queues.items()
            if queue
        ]
        return min(heads)[1] if heads else ""

    def has_room(self, rows: int) -> bool:
        """Return whether so many rows more may wait."""
        return self.waiting_rows + rows <= self.limit

    def add(self, ticket: Ticket) -> None:
        """Append a request."""
        self._queues.setdefault(ticket.operation, OrderedDict())[ticket] = None
        self.waiting_rows += ticket.rows

    def leave(self, ticket: Ticket) -> None:
        """Take out what is left of a request; nothing happens if it has been cut whole."""
        queue = self._queues.get(ticket.operation)
        if queue is not None and ticket in queue:
            del queue[ticket]
            self.waiting_rows -= ticket.rows - ticket.cut_rows

    def cut(self, max_rows: int, now_s: float) -> tuple[Batch | None, list[Ticket]]:
        """Take the next batch out, with the requests that were found expired on the way.

        The operation whose head has waited longest goes first, so none can starve another.
        """
        expired: list[Ticket] = []
        heads: list[tuple[int, str]] = []
        for operation, queue in self._queues.items():
            while queue and _is_expired(head := next(iter(queue)), now_s):
                expired.append(head)
                self.leave(head)
            if queue:
                heads.append((next(iter(queue)).submitted_ns, operation))
        if not heads:
            return None, expired
        operation = min(heads)[1]
        queue = self._queues[operation]
        slices: list[Slice] = []
        rows = 0
        while queue and rows < max_rows:
            ticket = next(iter(queue))
            if _is_expired(ticket, now_s):
                expired.append(ticket)
                self.leave(ticket)
                continue
            start = ticket.cut_rows
            part = Slice(ticket, start, min(ticket.rows, start + max_rows - rows))
            slices.append(part)
            rows += part.rows
            self.waiting_rows -= part.rows
            ticket.cut_rows = part.stop
            if part.stop == ticket.rows:
                del queue[ticket]
        return Batch(operation, slices, rows), expired


def _is_expired(ticket: Ticket, now_s: float) -> bool:
    return ticket.deadline is not None and ticket.deadline <= now_s
