"""Load generator: a closed loop with fixed concurrency, and an open loop with a schedule.

The latency of an open loop counts from the *intended* send time. A load tester that counts from the
actual send time sends less while the server stalls, and omits the waiting time of the calls that it
did not send on time (coordinated omission).
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from latentserve_client.load.drive.connection import CallResult, Connection
from latentserve_client.load.measure.call_records import CallRecorder
from latentserve_client.load.measure.reply_timings import NO_TIMINGS, read_timings
from latentserve_client.load.plan.workload import Request, Workload

# UNAVAILABLE and RESOURCE_EXHAUSTED, as in the retry policy of the client.
_RETRYABLE = frozenset({8, 14})
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 2.0
_STOP_CHECK_S = 0.1  # maximum delay until a stop takes effect
_FULL_CHECK_S = 0.001
# Without a pause, a closed loop would spin on an unreachable server: each call fails at once.
_UNAVAILABLE = 14
_UNAVAILABLE_PAUSE_S = 0.05

OnReply = Callable[[Request, bytes], None]
OnFailure = Callable[[Request, CallResult], None]


class Clock(Protocol):
    """Monotonic clock; tests replace it."""

    def now_ns(self) -> int:
        """Return monotonic nanoseconds."""

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""


class MonotonicClock:
    """The monotonic clock of the machine, common to all its processes."""

    now_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(time.sleep)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits of a call and of the generator."""

    timeout_s: float  # of one attempt
    retries: int = 0  # after UNAVAILABLE and RESOURCE_EXHAUSTED
    max_in_flight: int = 10_000  # of an open loop; at this limit, sends are late


class LoadGenerator:
    """Makes the calls of one process and records each of them."""

    def __init__(
        self,
        connections: Sequence[Connection],
        workload: Workload,
        recorder: CallRecorder,
        limits: CallLimits,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        on_reply: OnReply | None = None,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._connections = connections
        self._kinds = workload.kinds
        self._requests = workload.order(seed)
        self._append = recorder.append
        self._limits = limits
        self._clock = clock or MonotonicClock()
        self._on_reply = on_reply
        self._on_failure = on_failure
        self._stopping = False
        self._end_ns = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []  # heap of retries
        self._numbers = itertools.count()
        self._retries = threading.Condition()

    def run_closed(self, concurrency: int, start_ns: int, end_ns: int) -> None:
        """Keep `concurrency` calls in flight from `start_ns` until `end_ns` or `stop`."""
        self._end_ns = end_ns
        self._wait_until(start_ns)
        for number in range(concurrency):
            self._send_next(self._connections[number % len(self._connections)])
        while not self._over():
            self._wait_and_retry(self._clock.now_ns() + int(_STOP_CHECK_S * 1e9))

    def run_open(self, arrivals: Iterable[float], start_ns: int) -> None:
        """Send a call at `start_ns` plus each arrival in seconds, or late.

        Returns after the last send, without waiting for the replies.
        """
        connections = itertools.cycle(self._connections)
        for arrival_s in arrivals:
            intended_ns = start_ns + int(arrival_s * 1e9)
            self._wait_until(intended_ns)
            while self.in_flight >= self._limits.max_in_flight and not self._stopping:
                self._wait_and_retry(self._clock.now_ns() + int(_FULL_CHECK_S * 1e9))
            if self._stopping:
                return
            self._send(next(connections), next(self._requests), intended_ns, None)

    def stop(self) -> None:
        """Stop sending."""
        self._stopping = True

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended, including those waiting for a retry."""
        return sum(connection.in_flight for connection in self._connections) + len(self._waiting)

    def drain(self, limit_s: float) -> bool:
        """Wait until all calls and their retries have ended; return False if the limit passes."""
        self._end_ns = 0
        end_ns = self._clock.now_ns() + int(limit_s * 1e9)
        while self.in_flight and self._clock.now_ns() < end_ns:
            self._wait_and_retry(self._clock.now_ns() + int(0.01 * 1e9))
        return not self.in_flight

    def _over(self) -> bool:
        return self._stopping or self._clock.now_ns() >= self._end_ns

    def _wait_until(self, due_ns: int) -> None:
        while not self._stopping and self._clock.now_ns() < due_ns:
            self._wait_and_retry(due_ns)

    def _wait_and_retry(self, due_ns: int) -> None:
        """Sleep until `due_ns` at most, then start the retries that are due."""
        now_ns = self._clock.now_ns()
        with self._retries:
            if self._waiting:
                due_ns = min(due_ns, self._waiting[0][0])
        if due_ns > now_ns:
            self._clock.sleep(min((due_ns - now_ns) / 1e9, _STOP_CHECK_S))
        while True:
            with self._retries:
                if not self._waiting or self._waiting[0][0] > self._clock.now_ns():
                    return
                _, _, retry = heapq.heappop(self._waiting)
            retry()

    def _send_next(self, connection: Connection) -> None:
        if not self._over():
            self._send(connection, next(self._requests), self._clock.now_ns(), self._send_next)

    def _send(
        self,
        connection: Connection,
        request: Request,
        intended_ns: int,
        then: Callable[[Connection], None] | None,
    ) -> None:
        call = _CallInFlight(self, connection, request, intended_ns, then)
        call.attempt()

    def schedule_retry(self, delay_s: float, retry: Callable[[], None]) -> None:
        """Call `retry` on the thread of the loop after this many seconds."""
        due_ns = self._clock.now_ns() + int(delay_s * 1e9)
        with self._retries:
            heapq.heappush(self._waiting, (due_ns, next(self._numbers), retry))


class _CallInFlight:
    """One call, from its first attempt to its record."""

    __slots__ = (
        "_attempts",
        "_batch_rows",
        "_compute_ns",
        "_connection",
        "_first_ns",
        "_generator",
        "_intended_ns",
        "_queue_ns",
        "_request",
        "_sent_ns",
        "_then",
    )

    def __init__(
        self,
        generator: LoadGenerator,
        connection: Connection,
        request: Request,
        intended_ns: int,
        then: Callable[[Connection], None] | None,
    ) -> None:
        self._generator = generator
        self._connection = connection
        self._request = request
        self._intended_ns = intended_ns
        self._then = then
        self._sent_ns = generator._clock.now_ns()
        self._first_ns = 0
        self._attempts = 0
        self._queue_ns, self._compute_ns, self._batch_rows = NO_TIMINGS

    def attempt(self) -> None:
        """Send the request."""
        self._attempts += 1
        request = self._request
        kind = self._generator._kinds[request.kind]
        self._connection.start(
            kind,
            request.payload,
            self._generator._limits.timeout_s,
            self._ended,
            self._on_message if kind.streaming else None,
        )

    def _on_message(self, message: bytes) -> None:
        generator = self._generator
        if not self._first_ns:
            self._first_ns = generator._clock.now_ns()
        self._add_timings(message)
        if generator._on_reply is not None:
            generator._on_reply(self._request, message)

    def _add_timings(self, message: bytes) -> None:
        """Add the timings of a reply; a stream counts its first queue time and all compute time."""
        field = self._generator._kinds[self._request.kind].timings_field
        if field:
            queue_ns, compute_ns, batch_rows = read_timings(message, field)
            if self._queue_ns < 0:
                self._queue_ns, self._compute_ns, self._batch_rows = (
                    queue_ns,
                    compute_ns,
                    batch_rows,
                )
            else:
                self._compute_ns += compute_ns
                self._batch_rows = max(self._batch_rows, batch_rows)

    def _ended(self, ended: CallResult) -> None:
        generator = self._generator
        end_ns = generator._clock.now_ns()
        if ended.code in _RETRYABLE and self._retry(ended):
            return
        if ended.message is not None:
            self._add_timings(ended.message)
        request = self._request
        generator._append(
            (
                request.kind,
                ended.code,
                request.rows,
                self._attempts,
                self._intended_ns,
                self._sent_ns,
                self._first_ns,
                end_ns,
                self._queue_ns,
                self._compute_ns,
                self._batch_rows,
            )
        )
        if ended.code and generator._on_failure is not None:
            generator._on_failure(request, ended)
        elif ended.message is not None and generator._on_reply is not None:
            generator._on_reply(request, ended.message)
        then = self._then
        if then is not None:
            if ended.code == _UNAVAILABLE:
                generator.schedule_retry(_UNAVAILABLE_PAUSE_S, lambda: then(self._connection))
            else:
                then(self._connection)

    def _retry(self, ended: CallResult) -> bool:
        generator = self._generator
        delay_s = ended.pushback_s
        if self._attempts > generator._limits.retries or generator._stopping or self._first_ns:
            return False
        if delay_s is None:
            delay_s = min(_FIRST_BACKOFF_S * 2 ** (self._attempts - 1), _MAX_BACKOFF_S)
        elif delay_s < 0:
            return False  # the server forbids a retry
        generator.schedule_retry(delay_s, self.attempt)
        return True
