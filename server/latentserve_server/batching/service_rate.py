"""How fast an engine works its queue off, learned from the batches that it ran.

The time of a batch is taken to be a + b n for n rows, fitted per operation by least squares over
the last batches (older ones fade); a is what a batch costs however small, so a rate in rows per
second alone would be wrong by as much as batches are larger than those that were measured. What
no batch has shown is taken as favourable: nothing is refused on a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from latentserve_server.batching.queue import Batch, OperationQueue

_FADE = 0.1
"""The weight of the newest batch; the last ten or so count."""
_STALL = 4.0
"""A batch counts as so many times the expected one at most: a process that was stopped for a
second says little about the next batch. What really got slower is learned within some more."""
_SPREAD = 0.1
"""Batches that differ in rows by less than this part of their mean tell nothing about b."""


class BatchCost:
    """Seconds of one operation's batches as a function of their rows."""

    __slots__ = ("_covariance", "_mean_rows", "_mean_s", "_variance")

    def __init__(self, rows: int, seconds: float) -> None:
        self._mean_rows = float(rows)
        self._mean_s = seconds
        self._variance = 0.0
        self._covariance = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Count one more batch."""
        expected_s = self._mean_s * max(rows / self._mean_rows, 1.0)
        more_rows = rows - self._mean_rows
        more_s = min(seconds, _STALL * expected_s) - self._mean_s
        self._mean_rows += _FADE * more_rows
        self._mean_s += _FADE * more_s
        keep = 1 - _FADE
        self._variance = keep * (self._variance + _FADE * more_rows * more_rows)
        self._covariance = keep * (self._covariance + _FADE * more_rows * more_s)

    def of(self, rows: int) -> float:
        """Return the seconds of a batch.

        Neither a nor b is negative. Where all batches had about the same size, a or b is 0,
        whichever gives the shorter time.
        """
        mean_rows, mean_s = self._mean_rows, self._mean_s
        slope = mean_s / mean_rows
        if self._variance > (_SPREAD * mean_rows) ** 2:
            slope = min(max(self._covariance / self._variance, 0.0), slope)
        elif rows > mean_rows:
            slope = 0.0
        return mean_s + slope * (rows - mean_rows)


class ServiceRate:
    """What one engine has shown of its speed.

    `slowest_s` is the time of the slowest full batch, `rows_per_s` the average over the last
    batches whatever they were; both 0 until something was measured.

    Args:
        max_batch_rows: rows of one batch, at most.
    """

    def __init__(self, max_batch_rows: int) -> None:
        self._max_rows = max_batch_rows
        self._costs: dict[str, BatchCost] = {}
        self._full_s: dict[str, float] = {}
        self._mean_rows = 0.0
        self._mean_s = 0.0
        self.slowest_s = 0.0

    @property
    def rows_per_s(self) -> float:
        """Rows per second of the last batches."""
        return self._mean_rows / self._mean_s if self._mean_s else 0.0

    def learn(self, operation: str, rows: int, seconds: float) -> None:
        """Count a batch that took `seconds` from the cut until its answers were given."""
        cost = self._costs.get(operation)
        if cost is None:
            cost = self._costs[operation] = BatchCost(rows, seconds)
        else:
            cost.learn(rows, seconds)
        self._full_s[operation] = cost.of(self._max_rows)
        self.slowest_s = max(self._full_s.values())
        fade = _FADE if self._mean_s else 1.0
        self._mean_rows += fade * (rows - self._mean_rows)
        self._mean_s += fade * (seconds - self._mean_s)

    def batch_s(self, operation: str, rows: int) -> float:
        """Return the seconds of a batch; 0 for an operation that never ran."""
        cost = self._costs.get(operation)
        return cost.of(rows) if cost is not None else 0.0

    def rest_s(self, running: Batch | None, elapsed_s: float) -> float:
        """Return how long a batch that began `elapsed_s` ago will still run."""
        if running is None:
            return 0.0
        return max(self.batch_s(running.operation, running.rows) - elapsed_s, 0.0)

    def ahead_s(self, operation: str, queues: Mapping[str, OperationQueue]) -> float:
        """Return how long, at least, what waits keeps a new request from being cut.

        It goes with the last batch of its operation, after the full ones. If there is none, all
        that waits for other operations is older and goes first; otherwise of each operation
        with an older head at least one batch does.
        """
        own = queues.get(operation)
        ahead = own.rows if own is not None else 0
        seconds = ahead // self._max_rows * self.batch_s(operation, self._max_rows)
        head_ns = own.head().submitted_ns if own is not None and ahead else None
        for other, queue in queues.items():
            if other == operation or not queue.rows:
                continue
            if head_ns is None:
                seconds += self._all_s(other, queue.rows)
            elif queue.head().submitted_ns < head_ns:
                seconds += self.batch_s(other, min(queue.rows, self._max_rows))
        return seconds

    def leave_s(self, rows: int, queues: Mapping[str, OperationQueue]) -> float:
        """Return how long it takes until `rows` of those that wait are cut, the first now.

        Of each operation as large a part as it has of the queue.
        """
        waiting = sum(queue.rows for queue in queues.values())
        if not waiting:
            return 0.0
        whole_s = sum(self._all_s(operation, queue.rows) for operation, queue in queues.items())
        batches = sum(-(-queue.rows // self._max_rows) for queue in queues.values())
        # The rows of a batch leave when it begins: the last one need not have run.
        needed = -(-rows * batches // waiting)
        return max(needed - 1, 0) * whole_s / batches

    def _all_s(self, operation: str, rows: int) -> float:
        full, rest = divmod(rows, self._max_rows)
        seconds = full * self.batch_s(operation, self._max_rows)
        return seconds + self.batch_s(operation, rest) if rest else seconds
