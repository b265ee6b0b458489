"""Quotas on queued rows and bytes, per model version and in total.

A quota counts the rows in queues and the bytes of their arrays as sent. It does not count running
rows, although their memory is still held: for each model one batch, the request that spans several
batches, and the buffers of the engine.

One half of the total limit is shared on demand. The other half is reserved for the model versions
in equal parts, so that no version is refused within its part, whatever the length of the other
queues. A single version can use both halves; with two, one can use three quarters while the queue
of the other is empty. Each new version makes the parts smaller; rows that another version has
queued beyond its new part must leave before the new part is free. The total limit always holds.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from latentserve_server.batching.room import Room
from latentserve_server.errors import QueueFull

_UNBOUNDED = 2**62
_UNKNOWN_WAIT_S = 0.1
_SHORTEST_RETRY_S = 0.01
_LONGEST_RETRY_S = 5.0


class QuotaExcess(NamedTuple):
    """The limit that a request would exceed, and by how much.

    Attributes:
        limit_name: `queue_rows`, `queue_bytes`, `total_queue_rows` or `total_queue_bytes`. All
            numbers are in its unit.
        waiting: size of the queue.
        sent: size of the request.
        limit: the limit.
        exceeded_by: how much must leave the queue before the request fits.
        reserved: the part of the limit that is reserved for other models.
        fits_empty_queue: whether the request would fit into an empty queue.
    """

    limit_name: str
    waiting: int
    sent: int
    limit: int
    exceeded_by: int
    reserved: int = 0
    fits_empty_queue: bool = True

    @property
    def is_total(self) -> bool:
        """Whether the limit is the total of all models."""
        return self.limit_name.startswith("total")

    @property
    def reason(self) -> str:
        """The reason for a refusal, one of `callbacks.REFUSED`."""
        return "total_full" if self.is_total else "queue_full"

    @property
    def in_bytes(self) -> bool:
        """Whether the limit is in bytes."""
        return self.limit_name.endswith("bytes")

    def error(self, name: str, wait_s: float | None) -> QueueFull:
        """Return the error for a request to the model `name`.

        `wait_s` is the expected time until the request fits, None if unknown. The error passes it
        on as the retry delay, limited to 10 ms to 5 s because the load changes. The error has no
        retry delay for a request that would not fit into an empty queue.
        """
        unit = "bytes" if self.in_bytes else "rows"
        where = "the queues of all models are" if self.is_total else f"the queue of {name} is"
        reserved = (
            f", of which {self.reserved} are reserved for other models" if self.reserved else ""
        )
        flag = f"--{self.limit_name.replace('_', '-')}"
        advice = (
            "Try again later, or with fewer rows"
            if self.fits_empty_queue
            else "It would not fit into an empty queue either: send fewer rows at once"
        )
        wait_s = _UNKNOWN_WAIT_S if wait_s is None else wait_s
        retry_s = min(max(wait_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
        return QueueFull(
            f"{where} full: {self.waiting} {unit} wait, the request has {self.sent}, "
            f"the limit is {self.limit} ({flag}){reserved}. {advice}",
            metadata={
                "limit": self.limit_name,
                f"waiting_{unit}": str(self.waiting),
                f"request_{unit}": str(self.sent),
                self.limit_name: str(self.limit),
            },
            retry_after_s=retry_s if self.fits_empty_queue else None,
        )


class QueueQuota:
    """The total quota of all models of a process.

    Args:
        max_rows, max_bytes: limits on queued rows and bytes.

    `room` has the requests that wait outside the queues.
    """

    def __init__(self, *, max_rows: int = _UNBOUNDED, max_bytes: int = _UNBOUNDED) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        # Up to these totals, the reserved part of every model is still free.
        self.shared_rows = max_rows - max_rows // 2
        self.shared_bytes = max_bytes - max_bytes // 2
        self.rows = 0
        self.nbytes = 0
        self.lock = threading.RLock()
        self.room = Room()
        self._model_quotas: list[ModelQuota] = []

    def model_quota(self, *, max_rows: int, max_bytes: int = _UNBOUNDED) -> ModelQuota:
        """Return the quota of one more model version, with these limits."""
        model_quota = ModelQuota(self, max_rows, max_bytes)
        with self.lock:
            self._model_quotas = [
                known for known in self._model_quotas if not known.ended or known.rows
            ]
            self._model_quotas.append(model_quota)
        return model_quota

    def excess(self, model_quota: ModelQuota, rows: int, nbytes: int) -> QuotaExcess | None:
        """Return the limit that a request would exceed, None if it fits. The caller holds the lock.

        `rows` and `nbytes` are the size of the request, which is for `model_quota`.
        """
        others = [s for s in self._model_quotas if s is not model_quota and not s.ended]
        for name, in_bytes, total, limit, sent in (
            ("total_queue_rows", False, self.rows, self.max_rows, rows),
            ("total_queue_bytes", True, self.nbytes, self.max_bytes, nbytes),
        ):
            part = limit // 2 // (len(others) + 1)
            reserved = sum(max(part - other.waiting(in_bytes=in_bytes), 0) for other in others)
            exceeded_by = total + sent + reserved - limit
            if exceeded_by > 0:
                fits = sent + part * len(others) <= limit
                return QuotaExcess(name, total, sent, limit, exceeded_by, reserved, fits)
        return None

    def wait_s(self, model_quota: ModelQuota, excess: QuotaExcess) -> float | None:
        """Return the expected seconds until `excess.exceeded_by` has left, None if unknown.

        Another model makes room only with the rows that it has queued beyond its reserved part.
        """
        with self.lock:
            live = [s for s in self._model_quotas if s is model_quota or not s.ended]
            in_bytes = excess.in_bytes
            part = excess.limit // 2 // len(live)
            making_room = [
                s for s in live if s is model_quota or s.waiting(in_bytes=in_bytes) > part
            ]
            rows = sum(s.rows for s in making_room)
            waiting = sum(s.waiting(in_bytes=in_bytes) for s in making_room)
        rows_per_s = sum(s.rows_per_s for s in making_room)
        if not rows_per_s or not waiting:
            return None
        return excess.exceeded_by * rows / waiting / rows_per_s


class ModelQuota:
    """The quota of one model version. Its batcher holds a lock around `acquire` and `release`.

    `rows_per_s` is the measured service rate, read by the other versions; 0 if unknown. `ended` is
    set when the version accepts no more requests: then no part is reserved for it.
    `promised_rows` is the room that is kept for the first request that waits outside the queue.
    """

    __slots__ = (
        *("__weakref__", "_queue_quota", "ended", "max_bytes", "max_rows", "nbytes", "rows"),
        *("promised_rows", "rows_per_s"),
    )

    def __init__(self, queue_quota: QueueQuota, max_rows: int, max_bytes: int) -> None:
        self._queue_quota = queue_quota
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0
        self.rows_per_s = 0.0
        self.promised_rows = 0
        self.ended = False

    def waiting(self, *, in_bytes: bool) -> int:
        """Return the size of the queue, in rows or in bytes."""
        return self.nbytes if in_bytes else self.rows

    def acquire(self, rows: int, nbytes: int, *, waited: bool = False) -> QuotaExcess | None:
        """Count a request as queued, or return the limit that it would exceed.

        A request that `waited` may use the promised rows.
        """
        promised = 0 if waited else self.promised_rows
        fits = self.rows + promised + rows <= self.max_rows
        if not fits or self.nbytes + nbytes > self.max_bytes:
            return self._own_excess(rows, nbytes, promised)
        queue_quota = self._queue_quota
        with queue_quota.lock:
            total_rows, total_bytes = queue_quota.rows + rows, queue_quota.nbytes + nbytes
            if total_rows > queue_quota.shared_rows or total_bytes > queue_quota.shared_bytes:
                excess = queue_quota.excess(self, rows, nbytes)
                if excess is not None:
                    return excess
            queue_quota.rows, queue_quota.nbytes = total_rows, total_bytes
            self.rows += rows
            self.nbytes += nbytes
        return None

    def excess(self, rows: int, nbytes: int) -> QuotaExcess | None:
        """Return the limit that a request which waited would exceed now, None if it fits."""
        excess = self._own_excess(rows, nbytes, 0)
        if excess is not None:
            return excess
        with self._queue_quota.lock:
            return self._queue_quota.excess(self, rows, nbytes)

    def _own_excess(self, rows: int, nbytes: int, promised: int) -> QuotaExcess | None:
        exceeded_by = self.rows + promised + rows - self.max_rows
        if exceeded_by > 0:
            fits = rows <= self.max_rows
            waiting = self.rows + promised
            return QuotaExcess(
                "queue_rows", waiting, rows, self.max_rows, exceeded_by, fits_empty_queue=fits
            )
        exceeded_by = self.nbytes + nbytes - self.max_bytes
        if exceeded_by > 0:
            fits = nbytes <= self.max_bytes
            return QuotaExcess(
                *("queue_bytes", self.nbytes, nbytes, self.max_bytes, exceeded_by),
                fits_empty_queue=fits,
            )
        return None

    def release(self, rows: int, nbytes: int) -> None:
        """Subtract rows that left the queue, and their bytes."""
        queue_quota = self._queue_quota
        with queue_quota.lock:
            queue_quota.rows -= rows
            queue_quota.nbytes -= nbytes
            self.rows -= rows
            self.nbytes -= nbytes

    def wait_s(self, excess: QuotaExcess) -> float | None:
        """Return the expected seconds until the total limit has room; see `QueueQuota.wait_s`."""
        return self._queue_quota.wait_s(self, excess)
