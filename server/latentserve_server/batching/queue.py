"""The bounded queue of one engine, and how a batch is cut from it.

Not safe for threads by itself: the batcher holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from latentserve_server.batching.quota import ModelQuota, QuotaExcess
from latentserve_server.batching.request import QueuedRequest

AT_ONCE_NS = 0.0


class Slice(NamedTuple):
    """Rows `start` to `stop` of a request, part of one batch."""

    request: QueuedRequest
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


class OperationQueue:
    """The requests for one operation, in order of arrival."""

    __slots__ = ("_due_ns", "requests", "rows")

    def __init__(self) -> None:
        # A dict, so that a cancelled request leaves in O(1).
        self.requests: OrderedDict[QueuedRequest, None] = OrderedDict()
        self.rows = 0
        self._due_ns: float | None = None

    def add(self, request: QueuedRequest) -> None:
        """Append a request."""
        if not self.requests or (self._due_ns is not None and request.due_ns < self._due_ns):
            self._due_ns = request.due_ns
        self.requests[request] = None
        self.rows += request.rows

    def head(self) -> QueuedRequest:
        """The request that came first."""
        return next(iter(self.requests))

    def due_ns(self, max_rows: int) -> float:
        """Return when a batch is to be cut; the line must not be empty."""
        if self.rows >= max_rows:
            return AT_ONCE_NS
        if self._due_ns is None:  # somebody left; there are fewer than `max_rows` to look at
            self._due_ns = min(request.due_ns for request in self.requests)
        return self._due_ns

    def has_left(self, rows: int) -> None:
        """Count rows that were taken out."""
        self.rows -= rows
        self._due_ns = None


class RequestQueue:
    """Requests in order of arrival, per operation; `model_quota` bounds and counts what waits."""

    def __init__(self, model_quota: ModelQuota) -> None:
        self.model_quota = model_quota
        self.queues: dict[str, OperationQueue] = {}

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Every request that has rows left to run."""
        for queue in self.queues.values():
            yield from queue.requests

    def next_up(self) -> tuple[str, int, int]:
        """Return the operation whose head has waited longest, its rows and its requests.

        ("", 0, 0) where nothing waits.
        """
        oldest_ns, chosen, found = 0, "", None
        for operation, queue in self.queues.items():
            if queue.requests:
                head_ns = next(iter(queue.requests)).submitted_ns
                if found is None or head_ns < oldest_ns:
                    oldest_ns, chosen, found = head_ns, operation, queue
        return (chosen, found.rows, len(found.requests)) if found is not None else ("", 0, 0)

    def add(self, request: QueuedRequest) -> QuotaExcess | None:
        """Append a request, or return why there is no room for it."""
        excess = self.model_quota.take(request.rows, request.rows * request.row_bytes)
        if excess is not None:
            return excess
        queue = self.queues.get(request.operation)
        if queue is None:
            queue = self.queues[request.operation] = OperationQueue()
        queue.add(request)
        return None

    def leave(self, request: QueuedRequest) -> None:
        """Take out what is left of a request; nothing happens if it has been cut whole."""
        queue = self.queues.get(request.operation)
        if queue is not None and request in queue.requests:
            del queue.requests[request]
            rows = request.rows - request.cut_rows
            queue.has_left(rows)
            self.model_quota.give_back(rows, rows * request.row_bytes)

    def due_ns(self, max_rows: int) -> float | None:
        """Return when the next batch is to be cut, None where nothing waits."""
        due = [queue.due_ns(max_rows) for queue in self.queues.values() if queue.requests]
        return min(due) if due else None

    def cut(
        self, max_rows: int, now_ns: int, *, due_only: bool = False
    ) -> tuple[Batch | None, list[QueuedRequest]]:
        """Take the next batch out, with the requests that were found expired on the way.

        The operation whose head has waited longest goes first, so none can starve another.
        `due_only` leaves alone what may still wait for company.
        """
        expired: list[QueuedRequest] = []
        oldest_ns, chosen = 0, None
        for operation, queue in self.queues.items():
            requests = queue.requests
            while requests:
                head = next(iter(requests))
                if head.deadline_ns > now_ns:
                    if due_only and queue.due_ns(max_rows) > now_ns:
                        break
                    if chosen is None or head.submitted_ns < oldest_ns:
                        oldest_ns, chosen = head.submitted_ns, operation
                    break
                expired.append(head)
                self.leave(head)
        if chosen is None:
            return None, expired
        queue = self.queues[chosen]
        slices: list[Slice] = []
        rows = nbytes = 0
        requests = queue.requests
        while requests and rows < max_rows:
            request = next(iter(requests))
            if request.deadline_ns <= now_ns:
                expired.append(request)
                self.leave(request)
                continue
            start, stop = request.cut_rows, request.rows
            if stop - start > max_rows - rows:
                stop = start + max_rows - rows
            else:
                del requests[request]
            request.cut_rows = stop
            slices.append(Slice(request, start, stop))
            rows += stop - start
            nbytes += (stop - start) * request.row_bytes
        queue.has_left(rows)
        self.model_quota.give_back(rows, nbytes)
        return Batch(chosen, slices, rows), expired
