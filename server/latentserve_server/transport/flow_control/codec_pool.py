"""Bounded queue of the threads that parse requests and build replies.

Requests are counted in bytes. A request is refused if the limit is exceeded, or if the measured
speed of the threads says that its deadline would pass while it waits. A job whose call was
cancelled leaves the queue at once, with its bytes; an expired one does not run. A running job is
checked between its files (`codec.interruption`).

Replies are never refused: their rows were admitted by the batcher, and their bytes are counted by
`reply_quota`. They count for the expected wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from latentserve_server.codec.interruption import interruptible
from latentserve_server.errors import CallError, DeadlineExceeded, QueueFull
from latentserve_server.transport.base import LARGE_REQUEST_BYTES

log = logging.getLogger(__name__)

THREADS = 2
_UNBOUNDED = 2**62
_WEIGHT = 0.2  # of the newest measurement
_SAFETY_FACTOR = 2.0  # as in `batching.admission`
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 0.01, 5.0
# Above this size, requests with image files are decoded here, since each file takes about 0.1 ms.
MIN_CODEC_BYTES = 16 * 1024
_HEAD_BYTES = 512
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff")
REFUSED = ("full", "deadline")
"""Reasons for which a request is refused here."""


def kind_of(request: bytes) -> str:
    """Return the kind of work to parse a request here, `files` or `tensor`; "" for little work."""
    if len(request) <= MIN_CODEC_BYTES:
        return ""
    if any(request.find(signature, 0, _HEAD_BYTES) >= 0 for signature in _SIGNATURES):
        return "files"
    return "tensor" if len(request) > LARGE_REQUEST_BYTES else ""


class CodecJob:
    """One job. Set as the call's work before it is submitted, so that it can be cancelled.

    Args:
        kind: work of one kind takes about the same time per byte.
        run: does the work; not called if the job is dropped.
        fail: gets the error of an expired job.
        nbytes: bytes of the request or of the outputs.
        deadline: monotonic seconds, or None.
    """

    __slots__ = ("cancelled", "deadline", "expected_s", "fail", "kind", "nbytes", "pool", "run")

    def __init__(
        self,
        kind: str,
        run: Callable[[], object],
        fail: Callable[[Exception], object],
        nbytes: int,
        deadline: float | None,
    ) -> None:
        self.kind = kind
        self.run: Callable[[], object] | None = run
        self.fail = fail
        self.nbytes = nbytes
        self.deadline = deadline
        self.expected_s = 0.0
        self.cancelled = False
        self.pool: CodecPool | None = None

    def cancel(self) -> None:
        """Drop the job if it waits, or end it between two files. Safe from any thread."""
        self.cancelled = True
        if self.pool is not None:
            self.pool.drop(self)

    def check(self) -> None:
        """Raise DeadlineExceeded if nobody needs the job any more."""
        if self.cancelled:
            raise DeadlineExceeded("the call was cancelled")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineExceeded(
                "the deadline passed while the request was decoded or its reply encoded. "
                "Allow more time, or send fewer rows at once"
            )


class CodecPool:
    """The queue; `nbytes` is the size of the requests that wait.

    Args:
        executor: has `THREADS` threads.
        max_bytes: limit on the bytes of requests that wait.
        on_refused: called with one of `REFUSED`.
    """

    def __init__(
        self,
        executor: Executor,
        max_bytes: int = _UNBOUNDED,
        on_refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._executor = executor
        self._max_bytes = max_bytes
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._jobs: OrderedDict[CodecJob, bool] = OrderedDict()  # with whether it is a request
        self._waiting_s = 0.0
        self._seconds_per_byte: dict[str, float] = {}
        self.nbytes = 0

    def submit_request(self, job: CodecJob) -> None:
        """Queue the parsing of a request. Raises QueueFull or DeadlineExceeded."""
        with self._lock:
            waiting, wait_s = self.nbytes, self._waiting_s / THREADS
            full = waiting > 0 and waiting + job.nbytes > self._max_bytes
            left_s = float("inf") if job.deadline is None else job.deadline - time.monotonic()
            late = wait_s > _SAFETY_FACTOR * left_s or left_s <= 0
            if not full and not late:
                self._add(job, is_request=True)
        if full:
            self._on_refused("full")
            raise QueueFull(
                f"too many requests wait to be decoded: {waiting} bytes wait, the request has "
                f"{job.nbytes}, the limit is {self._max_bytes} (--queue-bytes). Try again later, "
                "or with fewer rows",
                metadata={"limit": "queue_bytes", "waiting_bytes": str(waiting)},
                retry_after_s=min(max(wait_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S),
            )
        if late:
            self._on_refused("deadline")
            raise DeadlineExceeded(
                f"the deadline is in {left_s:.3g} s, but the expected wait until the request is "
                f"decoded is {wait_s:.3g} s; the model did not run. Allow more time, or send "
                "fewer requests at once"
            )
        self._executor.submit(self._run_next)

    def submit_reply(self, job: CodecJob) -> None:
        """Queue the building of a reply."""
        with self._lock:
            self._add(job, is_request=False)
        self._executor.submit(self._run_next)

    def drop(self, job: CodecJob) -> None:
        """Remove a cancelled job, if it waits."""
        with self._lock:
            self._remove(job)

    def _add(self, job: CodecJob, *, is_request: bool) -> None:
        job.pool = self
        job.expected_s = self._seconds_per_byte.get(job.kind, 0.0) * job.nbytes
        self._jobs[job] = is_request
        self._waiting_s += job.expected_s
        if is_request:
            self.nbytes += job.nbytes

    def _remove(self, job: CodecJob) -> Callable[[], object] | None:
        """Remove a job and return its work, None if it does not wait. The caller has the lock."""
        is_request = self._jobs.pop(job, None)
        if is_request is None:
            return None
        self._waiting_s = self._waiting_s - job.expected_s if self._jobs else 0.0
        if is_request:
            self.nbytes -= job.nbytes
        run, job.run = job.run, None
        return run

    def _run_next(self) -> None:
        with self._lock:
            job = next(iter(self._jobs), None)
            run = None if job is None else self._remove(job)
        if job is None or run is None:
            return  # it was cancelled
        try:
            job.check()
        except CallError as error:
            job.fail(error)
            return
        started_s = time.monotonic()
        try:
            with interruptible(job.check):
                run()
        except Exception:
            log.exception("a request could not be decoded or its reply not be sent")
        self._learn(job, time.monotonic() - started_s)

    def _learn(self, job: CodecJob, seconds: float) -> None:
        if job.nbytes <= 0 or job.cancelled:
            return
        with self._lock:
            new = seconds / job.nbytes
            old = self._seconds_per_byte.get(job.kind, new)
            self._seconds_per_byte[job.kind] = old + _WEIGHT * (new - old)
