"""Fake clock and fake connections."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from latentserve_client.load.drive.connection import CallResult, OnDone, OnMessage
from latentserve_client.load.plan.workload import CallKind, Request, Workload

S = 1_000_000_000  # nanoseconds


class FakeClock:
    """A clock that advances only during `sleep`, which runs the due callbacks in order."""

    def __init__(self) -> None:
        self.ns = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        end_ns = self.ns + max(round(seconds * S), 1)
        while self._due and self._due[0][0] <= end_ns:
            due_ns, _, callback = heapq.heappop(self._due)
            self.ns = max(self.ns, due_ns)
            callback()
        self.ns = end_ns

    def at(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._due, (round(seconds * S), next(self._numbers), callback))


@dataclass
class FakeConnection:
    """Ends call number n with `answer(n)` after `service_s(n)` seconds."""

    clock: FakeClock
    service_s: Callable[[int], float] = lambda number: 0.001
    answer: Callable[[int], CallResult] = lambda number: CallResult(0, b"")
    started_ns: list[int] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: int = 0
    closed: bool = False

    def start(
        self,
        kind: CallKind,
        payload: bytes,
        timeout_s: float,
        done: OnDone,
        on_message: OnMessage | None,
    ) -> None:
        number = len(self.started_ns)
        self.started_ns.append(self.clock.now_ns())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

        def end() -> None:
            self.in_flight -= 1
            done(self.answer(number))

        self.clock.at(self.clock.now_ns() / S + self.service_s(number), end)

    def close(self) -> None:
        self.closed = True


ONE_KIND = Workload((CallKind("call", "/s/M"),), (Request(0, 0, b"x", 2),))
