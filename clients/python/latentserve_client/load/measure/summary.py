"""From rows of figures to statistics, chunk by chunk and in bounded memory.

A call is *measured* where its intended send time is in the measured time, after the warm-up.
Latencies and errors are those of measured calls; latencies are those of the good ones. Throughput
counts the good calls that *ended* in the measured time, so that a queue that is left behind does
not count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latentserve_client.load.measure.call_records import COLUMN, Rows
from latentserve_client.load.measure.histogram import COARSE, Histogram

# Calls that are sent later than this count as late; below it is the machine's own jitter.
LATE_NS = 1_000_000
_MAX_SLOTS = 600


@dataclass
class Totals:
    """What is kept of a group of calls."""

    latency: Histogram = field(default_factory=Histogram)  # of good calls, from the intended time
    service: Histogram = field(default_factory=Histogram)  # the same, from the actual send time
    first: Histogram = field(default_factory=Histogram)  # of streams, until the first message
    calls: int = 0  # measured
    ended_well: int = 0  # good calls that ended in the measured time, for the throughput
    rows_ended_well: int = 0
    retries: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    timed: int = 0  # good calls with Timings
    timed_ns: float = 0.0  # their latencies together
    queue_ns: float = 0.0
    compute_ns: float = 0.0
    batch_rows: float = 0.0

    def add(self, rows: Rows) -> None:
        """Add measured calls."""
        self.calls += len(rows)
        self.retries += int((_column(rows, "attempts") - 1).sum())
        codes, counts = np.unique(_column(rows, "code"), return_counts=True)
        self.codes.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        good = rows[_column(rows, "code") == 0]
        latency_ns = _column(good, "end_ns") - _column(good, "intended_ns")
        self.latency.add(latency_ns)
        self.service.add(_column(good, "end_ns") - _column(good, "sent_ns"))
        streams = good[_column(good, "first_ns") > 0]
        self.first.add(_column(streams, "first_ns") - _column(streams, "intended_ns"))
        timed = _column(good, "queue_ns") >= 0
        self.timed += int(timed.sum())
        self.timed_ns += float(latency_ns[timed].sum())
        self.queue_ns += float(_column(good, "queue_ns")[timed].sum())
        self.compute_ns += float(_column(good, "compute_ns")[timed].sum())
        self.batch_rows += float(_column(good, "batch_rows")[timed].sum())

    @property
    def errors(self) -> int:
        """Calls that ended in anything but OK."""
        return self.calls - self.codes[0]


@dataclass
class Slot:
    """What ended in one piece of time."""

    latency: Histogram = field(default_factory=lambda: Histogram(COARSE))
    good: int = 0
    rows: int = 0
    errors: int = 0

    def merge(self, other: Slot) -> None:
        """Add another one."""
        self.latency.merge(other.latency)
        self.good += other.good
        self.rows += other.rows
        self.errors += other.errors


class Timeline:
    """Slots of equal width, by when calls ended; they widen when there are too many."""

    def __init__(self, start_ns: int, width_s: float, *, may_widen: bool = True) -> None:
        self.start_ns = start_ns
        self.width_s = width_s
        self.slots: list[Slot] = []
        self._may_widen = may_widen

    def add(self, rows: Rows) -> None:
        """Add calls, good and bad."""
        since_ns = _column(rows, "end_ns") - self.start_ns
        rows, since_ns = rows[since_ns >= 0], since_ns[since_ns >= 0]
        numbers = since_ns // int(self.width_s * 1e9)
        while self._may_widen and len(numbers) and numbers.max() >= _MAX_SLOTS:
            self._widen()
            numbers //= 2
        for number in np.unique(numbers).tolist():
            while len(self.slots) <= number:
                self.slots.append(Slot())
            self._add_to(self.slots[number], rows[numbers == number])

    @staticmethod
    def _add_to(slot: Slot, rows: Rows) -> None:
        good = rows[_column(rows, "code") == 0]
        slot.latency.add(_column(good, "end_ns") - _column(good, "intended_ns"))
        slot.good += len(good)
        slot.rows += int(_column(good, "rows").sum())
        slot.errors += len(rows) - len(good)

    def _widen(self) -> None:
        for first, second in zip(self.slots[::2], self.slots[1::2], strict=False):
            first.merge(second)
        self.slots = self.slots[::2]
        self.width_s *= 2


class Summary:
    """The statistics of one run."""

    def __init__(self, kinds: int, start_ns: int, window_s: float, slot_s: float) -> None:
        self.start_ns = start_ns  # of the measured time
        self.end_ns = 2**62  # of the measured time; set once it is known
        self.total = Totals()
        self.kinds = [Totals() for _ in range(kinds)]
        self.late = Histogram()  # actual minus intended send time of measured calls, above LATE_NS
        self.timeline = Timeline(start_ns, slot_s)
        self.windows = Timeline(start_ns, window_s, may_widen=False)

    def add(self, rows: Rows) -> None:
        """Add calls as they end, in any order."""
        if not len(rows):
            return
        end_ns, intended_ns = _column(rows, "end_ns"), _column(rows, "intended_ns")
        ended = rows[(end_ns >= self.start_ns) & (end_ns < self.end_ns)]
        self.timeline.add(ended)
        self.windows.add(ended)
        measured = rows[(intended_ns >= self.start_ns) & (intended_ns < self.end_ns)]
        self.total.add(measured)
        late_ns = _column(measured, "sent_ns") - _column(measured, "intended_ns")
        self.late.add(late_ns[late_ns > LATE_NS])
        for number, totals in enumerate(self.kinds):
            totals.add(measured[_column(measured, "kind") == number])
            self._throughput(totals, ended[_column(ended, "kind") == number])
        self._throughput(self.total, ended)

    @staticmethod
    def _throughput(totals: Totals, ended: Rows) -> None:
        good = ended[_column(ended, "code") == 0]
        totals.ended_well += len(good)
        totals.rows_ended_well += int(_column(good, "rows").sum())

    def whole_windows(self, until_ns: int) -> list[Slot]:
        """Return the windows that were over at this time."""
        width_ns = int(self.windows.width_s * 1e9)
        count = max(min(until_ns, self.end_ns) - self.start_ns, 0) // width_ns
        # Windows in which nothing ended are windows, too.
        missing = [Slot() for _ in range(count - len(self.windows.slots))]
        return [*self.windows.slots, *missing][:count]


def _column(rows: Rows, name: str) -> NDArray[np.int64]:
    column: NDArray[np.int64] = rows[:, COLUMN[name]]
    return column
