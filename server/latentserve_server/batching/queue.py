"""Bounded FIFO queue of requests, counted in rows and bytes.

Each operation has its own queue; a batch is taken from one of them. Not thread-safe: the batcher
holds its lock around every call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from latentserve_server.batching.quota import ModelQuota, QuotaExcess
from latentserve_server.batching.request import QueuedRequest

DUE_NOW_NS = 0.0


class RequestSlice(NamedTuple):
    """Rows `start` to `stop` of a request, as part of one batch."""

    request: QueuedRequest
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start


class Batch(NamedTuple):
    """Rows of one operation that the engine runs in one call."""

    operation: str
    slices: list[RequestSlice]
    rows: int


class OperationQueue:
    """The queued requests of one operation, in order of arrival."""

    __slots__ = ("_due_ns", "requests", "rows")

    def __init__(self) -> None:
        # A dict, so that a cancelled request is removed in O(1).
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
        """Return the oldest request."""
        return next(iter(self.requests))

    def due_ns(self, max_rows: int) -> float:
        """Return when the next batch is due; the queue must not be empty."""
        if self.rows >= max_rows:
            return DUE_NOW_NS
        if self._due_ns is None:  # rows were removed; fewer than `max_rows` requests remain
            self._due_ns = min(request.due_ns for request in self.requests)
        return self._due_ns

    def remove_rows(self, rows: int) -> None:
        """Subtract rows that were removed."""
        self.rows -= rows
        self._due_ns = None


class RequestQueue:
    """The queues of all operations; `model_quota` counts and bounds their rows and bytes."""

    def __init__(self, model_quota: ModelQuota) -> None:
        self.model_quota = model_quota
        self.queues: dict[str, OperationQueue] = {}

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Iterate over the requests that still have queued rows."""
        for queue in self.queues.values():
            yield from queue.requests

    def peek(self) -> tuple[str, int, int]:
        """Return the operation with the oldest request, and its numbers of rows and requests.

        Returns ("", 0, 0) for an empty queue.
        """
        oldest_ns, chosen, found = 0, "", None
        for operation, queue in self.queues.items():
            if queue.requests:
                head_ns = next(iter(queue.requests)).submitted_ns
                if found is None or head_ns < oldest_ns:
                    oldest_ns, chosen, found = head_ns, operation, queue
        return (chosen, found.rows, len(found.requests)) if found is not None else ("", 0, 0)

    def add(self, request: QueuedRequest, *, waited: bool = False) -> QuotaExcess | None:
        """Append a request, or return the quota that it would exceed."""
        nbytes = request.rows * request.row_bytes
        excess = self.model_quota.acquire(request.rows, nbytes, waited=waited)
        if excess is not None:
            return excess
        queue = self.queues.get(request.operation)
        if queue is None:
            queue = self.queues[request.operation] = OperationQueue()
        queue.add(request)
        return None

    def remove(self, request: QueuedRequest) -> None:
        """Remove the queued rows of a request; does nothing if all have left the queue."""
        queue = self.queues.get(request.operation)
        if queue is not None and request in queue.requests:
            del queue.requests[request]
            rows = request.rows - request.dequeued_rows
            queue.remove_rows(rows)
            self.model_quota.release(rows, rows * request.row_bytes)

    def due_ns(self, max_rows: int) -> float | None:
        """Return when the next batch is due, None for an empty queue."""
        due = [queue.due_ns(max_rows) for queue in self.queues.values() if queue.requests]
        return min(due) if due else None

    def pop_batch(
        self, max_rows: int, now_ns: int, *, due_only: bool = False
    ) -> tuple[Batch | None, list[QueuedRequest]]:
        """Remove and return the next batch, and the expired requests that were found.

        Takes the operation with the oldest request, so that no operation starves another. With
        `due_only`, skips operations whose batch is not due yet.
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
                self.remove(head)
        if chosen is None:
            return None, expired
        queue = self.queues[chosen]
        slices: list[RequestSlice] = []
        rows = nbytes = 0
        requests = queue.requests
        while requests and rows < max_rows:
            request = next(iter(requests))
            if request.deadline_ns <= now_ns:
                expired.append(request)
                self.remove(request)
                continue
            start, stop = request.dequeued_rows, request.rows
            if stop - start > max_rows - rows:
                stop = start + max_rows - rows
            else:
                del requests[request]
            request.dequeued_rows = stop
            slices.append(RequestSlice(request, start, stop))
            rows += stop - start
            nbytes += (stop - start) * request.row_bytes
        queue.remove_rows(rows)
        self.model_quota.release(rows, nbytes)
        return Batch(chosen, slices, rows), expired
