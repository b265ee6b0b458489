"""How much may wait: rows and bytes, of one model and of all together.

What is counted are rows in queues, with the bytes of their arrays as they were sent. Rows that
run are not counted, though their memory is still held: per model one batch, the request that is
in several batches, and the buffers of the engine.

Of the overall limit one half is shared by demand. The other half is kept for the models in equal
parts, so that however much waits for one, no other is refused within its part. A single model has
both halves; with two, one may take three quarters while the other needs nothing. When versions
come, the parts shrink, and what waits beyond them must drain before a part is whole again; the
overall limit holds all the time.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from latentserve_server.errors import QueueFull

_UNBOUNDED = 2**62
_UNKNOWN_DRAIN_S = 0.1
_SHORTEST_RETRY_S = 0.01
_LONGEST_RETRY_S = 5.0


class QuotaExcess(NamedTuple):
    """Why a request is not admitted.

    `limit_name` is `queue_rows`, `queue_bytes`, `total_queue_rows` or `total_queue_bytes`, and
    the numbers are in its unit: what waits, what was sent, what may wait, and how much of what
    waits must leave first. `kept` is the part of the limit that is kept for other models.
    """

    limit_name: str
    waiting: int
    sent: int
    limit: int
    over: int
    kept: int = 0
    fits_alone: bool = True

    @property
    def of_all(self) -> bool:
        """Whether the limit is that of all models together."""
        return self.limit_name.startswith("total")

    @property
    def in_bytes(self) -> bool:
        """Whether the limit is one of bytes."""
        return self.limit_name.endswith("bytes")

    def error(self, name: str, wait_s: float | None) -> QueueFull:
        """Return the error for a request to the model `name`.

        `wait_s` is when it will fit as things are going, None where that is not known. The caller
        is told so, but never longer than 5 s: things change. A request that would not fit into an
        empty queue gets no time at all.
        """
        unit = "bytes" if self.in_bytes else "rows"
        where = "the queues of all models are" if self.of_all else f"the queue of {name} is"
        kept = f", of which {self.kept} are kept for other models" if self.kept else ""
        flag = f"--{self.limit_name.replace('_', '-')}"
        advice = (
            "Try again later, or with fewer rows"
            if self.fits_alone
            else "It would not fit into an empty queue either: send fewer rows at once"
        )
        wait_s = _UNKNOWN_DRAIN_S if wait_s is None else wait_s
        retry_s = min(max(wait_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
        return QueueFull(
            f"{where} full: {self.waiting} {unit} wait, the request has {self.sent}, "
            f"the limit is {self.limit} ({flag}){kept}. {advice}",
            metadata={
                "limit": self.limit_name,
                f"waiting_{unit}": str(self.waiting),
                f"request_{unit}": str(self.sent),
                self.limit_name: str(self.limit),
            },
            retry_after_s=retry_s if self.fits_alone else None,
        )


class QueueQuota:
    """What may wait for all models of a process together.

    Args:
        max_rows, max_bytes: the limits.
    """

    def __init__(self, *, max_rows: int = _UNBOUNDED, max_bytes: int = _UNBOUNDED) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        # As long as no more waits than this, every model still finds its own part whole.
        self.open_rows = max_rows - max_rows // 2
        self.open_bytes = max_bytes - max_bytes // 2
        self.rows = 0
        self.nbytes = 0
        self.lock = threading.RLock()
        self._model_quotas: list[ModelQuota] = []

    def model_quota(self, *, max_rows: int, max_bytes: int = _UNBOUNDED) -> ModelQuota:
        """Return the share of one more model version, with limits of its own."""
        model_quota = ModelQuota(self, max_rows, max_bytes)
        with self.lock:
            self._model_quotas = [
                known for known in self._model_quotas if not known.ended or known.rows
            ]
            self._model_quotas.append(model_quota)
        return model_quota

    def excess(self, model_quota: ModelQuota, rows: int, nbytes: int) -> QuotaExcess | None:
        """Return why so much more would not fit, None where it does. The lock is held."""
        others = [s for s in self._model_quotas if s is not model_quota and not s.ended]
        for name, in_bytes, total, limit, sent in (
            ("total_queue_rows", False, self.rows, self.max_rows, rows),
            ("total_queue_bytes", True, self.nbytes, self.max_bytes, nbytes),
        ):
            part = limit // 2 // (len(others) + 1)
            kept = sum(max(part - other.waiting(in_bytes=in_bytes), 0) for other in others)
            over = total + sent + kept - limit
            if over > 0:
                fits_alone = sent + part * len(others) <= limit
                return QuotaExcess(name, total, sent, limit, over, kept, fits_alone)
        return None

    def wait_s(self, model_quota: ModelQuota, excess: QuotaExcess) -> float | None:
        """Return how long `excess.over` takes to leave, in seconds; None where it is not known.

        Only what waits beyond a model's part makes room for others.
        """
        with self.lock:
            live = [s for s in self._model_quotas if s is model_quota or not s.ended]
            in_bytes = excess.in_bytes
            part = excess.limit // 2 // len(live)
            draining = [s for s in live if s is model_quota or s.waiting(in_bytes=in_bytes) > part]
            rows = sum(s.rows for s in draining)
            waiting = sum(s.waiting(in_bytes=in_bytes) for s in draining)
        rows_per_s = sum(s.rows_per_s for s in draining)
        if not rows_per_s or not waiting:
            return None
        return excess.over * rows / waiting / rows_per_s


class ModelQuota:
    """What waits for one model version. Its batcher's lock is held around `take` and `give_back`.

    `rows_per_s` is how fast its rows leave, for others to know; 0 until it is known. `ended` is set
    when the version takes no more requests: then nothing is kept for it.
    """

    __slots__ = (
        *("__weakref__", "_queue_quota", "ended", "max_bytes", "max_rows", "nbytes", "rows"),
        "rows_per_s",
    )

    def __init__(self, queue_quota: QueueQuota, max_rows: int, max_bytes: int) -> None:
        self._queue_quota = queue_quota
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0
        self.rows_per_s = 0.0
        self.ended = False

    def waiting(self, *, in_bytes: bool) -> int:
        """Return what waits, in rows or in bytes."""
        return self.nbytes if in_bytes else self.rows

    def take(self, rows: int, nbytes: int) -> QuotaExcess | None:
        """Count a request that is to wait; return why it must not, and then it is not counted."""
        over = self.rows + rows - self.max_rows
        if over > 0:
            fits = rows <= self.max_rows
            return QuotaExcess("queue_rows", self.rows, rows, self.max_rows, over, fits_alone=fits)
        over = self.nbytes + nbytes - self.max_bytes
        if over > 0:
            fits = nbytes <= self.max_bytes
            return QuotaExcess(
                "queue_bytes", self.nbytes, nbytes, self.max_bytes, over, fits_alone=fits
            )
        queue_quota = self._queue_quota
        with queue_quota.lock:
            total_rows, total_bytes = queue_quota.rows + rows, queue_quota.nbytes + nbytes
            if total_rows > queue_quota.open_rows or total_bytes > queue_quota.open_bytes:
                excess = queue_quota.excess(self, rows, nbytes)
                if excess is not None:
                    return excess
            queue_quota.rows, queue_quota.nbytes = total_rows, total_bytes
            self.rows += rows
            self.nbytes += nbytes
        return None

    def give_back(self, rows: int, nbytes: int) -> None:
        """Count no longer what has left the queue."""
        queue_quota = self._queue_quota
        with queue_quota.lock:
            queue_quota.rows -= rows
            queue_quota.nbytes -= nbytes
            self.rows -= rows
            self.nbytes -= nbytes

    def wait_s(self, excess: QuotaExcess) -> float | None:
        """Return how long it takes until the overall limit has room; see `QueueQuota.wait_s`."""
        return self._queue_quota.wait_s(self, excess)
