"""Statistics of a run, accumulated from call records in bounded memory.

A call is *measured* if its intended send time is within the measured time, after the warm-up.
Errors count measured calls, latencies count measured calls that succeeded. Throughput counts the
successful calls that *ended* within the measured time, so calls that are still queued at its end do
not count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from latentserve_client.load.measure.call_records import Records, column
from latentserve_client.load.measure.histogram import Histogram
from latentserve_client.load.measure.timeline import TimeBucket, Timeline

# A call sent later than this counts as late; smaller delays are jitter of the machine.
LATE_NS = 1_000_000


@dataclass
class CallStatistics:
    """Statistics of a group of calls."""

    # Of successful calls: latency from the intended send time, service from the actual one.
    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    first: Histogram = field(default_factory=Histogram)  # of streams: time to the first message
    calls: int = 0  # measured calls
    successful: int = 0  # successful calls that ended within the measured time
    successful_rows: int = 0  # rows of these calls
    retries: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    timed: int = 0  # successful calls with Timings
    timed_ns: float = 0.0  # sum of their latencies
    queue_ns: float = 0.0
    compute_ns: float = 0.0
    batch_rows: float = 0.0

    def add(self, records: Records) -> None:
        """Add the records of measured calls."""
        self.calls += len(records)
        self.retries += int((column(records, "attempts") - 1).sum())
        codes, counts = np.unique(column(records, "code"), return_counts=True)
        self.codes.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        succeeded = records[column(records, "code") == 0]
        latency_ns = column(succeeded, "end_ns") - column(succeeded, "intended_ns")
        self.latency.add(latency_ns)
        self.service.add(column(succeeded, "end_ns") - column(succeeded, "sent_ns"))
        streams = succeeded[column(succeeded, "first_ns") > 0]
        self.first.add(column(streams, "first_ns") - column(streams, "intended_ns"))
        timed = column(succeeded, "queue_ns") >= 0
        self.timed += int(timed.sum())
        self.timed_ns += float(latency_ns[timed].sum())
        self.queue_ns += float(column(succeeded, "queue_ns")[timed].sum())
        self.compute_ns += float(column(succeeded, "compute_ns")[timed].sum())
        self.batch_rows += float(column(succeeded, "batch_rows")[timed].sum())

    @property
    def errors(self) -> int:
        """Number of calls with a status other than OK."""
        return self.calls - self.codes[0]


class Summary:
    """Statistics of one run."""

    def __init__(self, kinds: int, start_ns: int, window_s: float, bucket_s: float) -> None:
        self.start_ns = start_ns  # start of the measured time
        self.end_ns = 2**62  # end of the measured time; set once it is known
        self.total = CallStatistics()
        self.kinds = [CallStatistics() for _ in range(kinds)]
        self.late = Histogram()  # send delay of measured calls, above LATE_NS
        self.timeline = Timeline(start_ns, bucket_s)
        self.windows = Timeline(start_ns, window_s, may_widen=False)

    def add(self, records: Records) -> None:
        """Add the records of finished calls, in any order."""
        if not len(records):
            return
        end_ns, intended_ns = column(records, "end_ns"), column(records, "intended_ns")
        ended = records[(end_ns >= self.start_ns) & (end_ns < self.end_ns)]
        self.timeline.add(ended)
        self.windows.add(ended)
        measured = records[(intended_ns >= self.start_ns) & (intended_ns < self.end_ns)]
        self.total.add(measured)
        late_ns = column(measured, "sent_ns") - column(measured, "intended_ns")
        self.late.add(late_ns[late_ns > LATE_NS])
        for number, totals in enumerate(self.kinds):
            totals.add(measured[column(measured, "kind") == number])
            self._add_throughput(totals, ended[column(ended, "kind") == number])
        self._add_throughput(self.total, ended)

    @staticmethod
    def _add_throughput(totals: CallStatistics, ended: Records) -> None:
        succeeded = ended[column(ended, "code") == 0]
        totals.successful += len(succeeded)
        totals.successful_rows += int(column(succeeded, "rows").sum())

    def whole_windows(self, until_ns: int) -> list[TimeBucket]:
        """Return the windows that had ended at this time."""
        width_ns = int(self.windows.width_s * 1e9)
        count = max(min(until_ns, self.end_ns) - self.start_ns, 0) // width_ns
        # Includes windows in which no call ended.
        missing = [TimeBucket() for _ in range(count - len(self.windows.buckets))]
        return [*self.windows.buckets, *missing][:count]
