"""Requests of running streams that wait for room in a full queue.

A full queue refuses a new call. A stream that was admitted has used its model and its client's
time, so its next chunk waits outside the queue instead: with its size, without its rows. Waiting
requests of a model are admitted in order of arrival.

Streams and new requests share the queue: waiting requests leave an eighth of it to new ones. If new
requests keep the queue full, room is promised to the first waiting request every `PATIENCE_S`: then
new requests are refused until it is admitted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

PATIENCE_S = 0.25
_SPARE_PART = 8  # the part of the queue that waiting requests leave free


class PromisingQuota(Protocol):
    """The interface of a model's quota that this module uses; see `quota.ModelQuota`."""

    promised_rows: int

    @property
    def max_rows(self) -> int:
        """Limit on queued rows."""

    @property
    def rows(self) -> int:
        """Queued rows."""

    def excess(self, rows: int, nbytes: int) -> object | None:
        """Return None if a request of this size fits."""


class RoomWaiter:
    """One waiting request of `rows` rows and `nbytes` bytes.

    `admit` submits it; it returns False if the queue is full again.
    """

    __slots__ = ("admit", "model_quota", "nbytes", "rows", "since_s")

    def __init__(
        self, model_quota: PromisingQuota, rows: int, nbytes: int, admit: Callable[[], bool]
    ) -> None:
        self.model_quota = model_quota
        self.rows = rows
        self.nbytes = nbytes
        self.admit = admit
        self.since_s = time.monotonic()


class Room:
    """The waiting requests of all models with one total quota. Safe from any thread.

    `waiting` is whether there is one, so that a batch reads only an attribute. `patience_s` is
    `PATIENCE_S`; tests change it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[PromisingQuota, deque[RoomWaiter]] = {}
        self._promised_s: dict[PromisingQuota, float] = {}  # the end of the last promise
        self.waiting = False
        self.patience_s = PATIENCE_S

    def wait(self, waiter: RoomWaiter) -> RoomWaiter:
        """Add a request and return it; it may be admitted at once, on this thread."""
        with self._lock:
            self._waiters.setdefault(waiter.model_quota, deque()).append(waiter)
            self.waiting = True
        self.admit()  # the room may have become free before the request was added
        return waiter

    def forget(self, waiter: RoomWaiter) -> None:
        """Remove a request, if it waits."""
        with self._lock:
            waiters = self._waiters.get(waiter.model_quota)
            if waiters is not None and waiter in waiters:
                was_first = waiter is waiters[0]
                waiters.remove(waiter)
                if was_first:
                    self._changed(waiter.model_quota)

    def admit(self) -> None:
        """Admit the requests that fit. Called without a lock when rows have left a queue."""
        for model_quota in tuple(self._waiters):
            while (waiter := self._next(model_quota)) is not None:
                admitted = waiter.admit()
                with self._lock:
                    if not admitted:
                        self._waiters.setdefault(model_quota, deque()).appendleft(waiter)
                    self._changed(model_quota)
                if not admitted:
                    break

    def _next(self, model_quota: PromisingQuota) -> RoomWaiter | None:
        """Remove and return the first request of a model if it fits; its room stays promised."""
        with self._lock:
            waiters = self._waiters.get(model_quota)
            if not waiters:
                return None
            first = waiters[0]
            spare = model_quota.max_rows // _SPARE_PART
            if model_quota.promised_rows or not model_quota.rows:
                spare = 0
            if model_quota.excess(first.rows + spare, first.nbytes) is None:
                return waiters.popleft()
            since_s = max(first.since_s, self._promised_s.get(model_quota, 0.0))
            if time.monotonic() - since_s >= self.patience_s:
                model_quota.promised_rows = first.rows
            return None

    def _changed(self, model_quota: PromisingQuota) -> None:
        """End the promise of a model, and update `waiting`. The caller holds the lock."""
        waiters = self._waiters.get(model_quota)
        if model_quota.promised_rows:
            model_quota.promised_rows = 0
            self._promised_s[model_quota] = time.monotonic()
        if not waiters:
            self._waiters.pop(model_quota, None)
            self._promised_s.pop(model_quota, None)
        self.waiting = bool(self._waiters)
