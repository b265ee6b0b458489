"""The bounded queue of one engine, and how a batch is cut from it.

Not safe for threads by itself: the batcher holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from latentserve_server.batching.quota import Excess, Share
from latentserve_server.batching.request import Ticket

AT_ONCE_NS = 0.0


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


class Line:
    """The requests for one operation, in order of arrival."""

    __slots__ = ("_due_ns", "rows", "tickets")

    def __init__(self) -> None:
        # A dict, so that a cancelled request leaves in O(1).
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.rows = 0
        self._due_ns: float | None = None

    def add(self, ticket: Ticket) -> None:
        """Append a request."""
        if not self.tickets or (self._due_ns is not None and ticket.due_ns < self._due_ns):
            self._due_ns = ticket.due_ns
        self.tickets[ticket] = None
        self.rows += ticket.rows

    def head(self) -> Ticket:
        """The request that came first."""
        return next(iter(self.tickets))

    def due_ns(self, max_rows: int) -> float:
        """Return when a batch is to be cut; the line must not be empty."""
        if self.rows >= max_rows:
            return AT_ONCE_NS
        if self._due_ns is None:  # somebody left; there are fewer than `max_rows` to look at
            self._due_ns = min(ticket.due_ns for ticket in self.tickets)
        return self._due_ns

    def has_left(self, rows: int) -> None:
        """Count rows that were taken out."""
        self.rows -= rows
        self._due_ns = None


class RowQueue:
    """Requests in order of arrival, per operation; `share` bounds and counts what waits."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.lines: dict[str, Line] = {}

    def __iter__(self) -> Iterator[Ticket]:
        """Every request that has rows left to run."""
        for line in self.lines.values():
            yield from line.tickets

    def next_up(self) -> tuple[str, int, int]:
        """Return the operation whose head has waited longest, its rows and its requests.

        ("", 0, 0) where nothing waits.
        """
        oldest_ns, chosen, found = 0, "", None
        for operation, line in self.lines.items():
            if line.tickets:
                head_ns = next(iter(line.tickets)).submitted_ns
                if found is None or head_ns < oldest_ns:
                    oldest_ns, chosen, found = head_ns, operation, line
        return (chosen, found.rows, len(found.tickets)) if found is not None else ("", 0, 0)

    def add(self, ticket: Ticket) -> Excess | None:
        """Append a request, or return why there is no room for it."""
        excess = self.share.take(ticket.rows, ticket.rows * ticket.row_bytes)
        if excess is not None:
            return excess
        line = self.lines.get(ticket.operation)
        if line is None:
            line = self.lines[ticket.operation] = Line()
        line.add(ticket)
        return None

    def leave(self, ticket: Ticket) -> None:
        """Take out what is left of a request; nothing happens if it has been cut whole."""
        line = self.lines.get(ticket.operation)
        if line is not None and ticket in line.tickets:
            del line.tickets[ticket]
            rows = ticket.rows - ticket.cut_rows
            line.has_left(rows)
            self.share.give_back(rows, rows * ticket.row_bytes)

    def due_ns(self, max_rows: int) -> float | None:
        """Return when the next batch is to be cut, None where nothing waits."""
        due = [line.due_ns(max_rows) for line in self.lines.values() if line.tickets]
        return min(due) if due else None

    def cut(
        self, max_rows: int, now_ns: int, *, due_only: bool = False
    ) -> tuple[Batch | None, list[Ticket]]:
        """Take the next batch out, with the requests that were found expired on the way.

        The operation whose head has waited longest goes first, so none can starve another.
        `due_only` leaves alone what may still wait for company.
        """
        expired: list[Ticket] = []
        oldest_ns, chosen = 0, None
        for operation, line in self.lines.items():
            tickets = line.tickets
            while tickets:
                head = next(iter(tickets))
                if head.deadline_ns > now_ns:
                    if due_only and line.due_ns(max_rows) > now_ns:
                        break
                    if chosen is None or head.submitted_ns < oldest_ns:
                        oldest_ns, chosen = head.submitted_ns, operation
                    break
                expired.append(head)
                self.leave(head)
        if chosen is None:
            return None, expired
        line = self.lines[chosen]
        slices: list[Slice] = []
        rows = nbytes = 0
        tickets = line.tickets
        while tickets and rows < max_rows:
            ticket = next(iter(tickets))
            if ticket.deadline_ns <= now_ns:
                expired.append(ticket)
                self.leave(ticket)
                continue
            start, stop = ticket.cut_rows, ticket.rows
            if stop - start > max_rows - rows:
                stop = start + max_rows - rows
            else:
                del tickets[ticket]
            ticket.cut_rows = stop
            slices.append(Slice(ticket, start, stop))
            rows += stop - start
            nbytes += (stop - start) * ticket.row_bytes
        line.has_left(rows)
        self.share.give_back(rows, nbytes)
        return Batch(chosen, slices, rows), expired
