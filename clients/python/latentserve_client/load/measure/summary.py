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

from latentserve_client.load.measure.call_records import Records, column
from latentserve_client.load.measure.histogram import Histogram
from latentserve_client.load.measure.timeline import TimeBucket, Timeline

# Calls that are sent later than this count as late; below it is the machine's own jitter.
LATE_NS = 1_000_000


@dataclass
class CallStatistics:
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

    def add(self, rows: Records) -> None:
        """Add measured calls."""
        self.calls += len(rows)
        self.retries += int((column(rows, "attempts") - 1).sum())
        codes, counts = np.unique(column(rows, "code"), return_counts=True)
        self.codes.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        good = rows[column(rows, "code") == 0]
        latency_ns = column(good, "end_ns") - column(good, "intended_ns")
        self.latency.add(latency_ns)
        self.service.add(column(good, "end_ns") - column(good, "sent_ns"))
        streams = good[column(good, "first_ns") > 0]
        self.first.add(column(streams, "first_ns") - column(streams, "intended_ns"))
        timed = column(good, "queue_ns") >= 0
        self.timed += int(timed.sum())
        self.timed_ns += float(latency_ns[timed].sum())
        self.queue_ns += float(column(good, "queue_ns")[timed].sum())
        self.compute_ns += float(column(good, "compute_ns")[timed].sum())
        self.batch_rows += float(column(good, "batch_rows")[timed].sum())

    @property
    def errors(self) -> int:
        """Calls that ended in anything but OK."""
        return self.calls - self.codes[0]


class Summary:
    """The statistics of one run."""

    def __init__(self, kinds: int, start_ns: int, window_s: float, bucket_s: float) -> None:
        self.start_ns = start_ns  # of the measured time
        self.end_ns = 2**62  # of the measured time; set once it is known
        self.total = CallStatistics()
        self.kinds = [CallStatistics() for _ in range(kinds)]
        self.late = Histogram()  # actual minus intended send time of measured calls, above LATE_NS
        self.timeline = Timeline(start_ns, bucket_s)
        self.windows = Timeline(start_ns, window_s, may_widen=False)

    def add(self, rows: Records) -> None:
        """Add calls as they end, in any order."""
        if not len(rows):
            return
        end_ns, intended_ns = column(rows, "end_ns"), column(rows, "intended_ns")
        ended = rows[(end_ns >= self.start_ns) & (end_ns < self.end_ns)]
        self.timeline.add(ended)
        self.windows.add(ended)
        measured = rows[(intended_ns >= self.start_ns) & (intended_ns < self.end_ns)]
        self.total.add(measured)
        late_ns = column(measured, "sent_ns") - column(measured, "intended_ns")
        self.late.add(late_ns[late_ns > LATE_NS])
        for number, totals in enumerate(self.kinds):
            totals.add(measured[column(measured, "kind") == number])
            self._throughput(totals, ended[column(ended, "kind") == number])
        self._throughput(self.total, ended)

    @staticmethod
    def _throughput(totals: CallStatistics, ended: Records) -> None:
        good = ended[column(ended, "code") == 0]
        totals.ended_well += len(good)
        totals.rows_ended_well += int(column(good, "rows").sum())

    def whole_windows(self, until_ns: int) -> list[TimeBucket]:
        """Return the windows that were over at this time."""
        width_ns = int(self.windows.width_s * 1e9)
        count = max(min(until_ns, self.end_ns) - self.start_ns, 0) // width_ns
        # Windows in which nothing ended are windows, too.
        missing = [TimeBucket() for _ in range(count - len(self.windows.buckets))]
        return [*self.windows.buckets, *missing][:count]
