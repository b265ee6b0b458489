"""Service rate of an engine, estimated from the batches that it ran.

The model is: a batch of n rows takes a + b n seconds. a and b are fitted per operation by least
squares with exponentially decaying weights. A rate in rows per second alone would be wrong for
batches of another size than those measured, because of the fixed cost a. Values without a
measurement are assumed to be low, so that no request is refused on a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from latentserve_server.batching.queue import Batch, OperationQueue

_WEIGHT = 0.1
"""Weight of the newest batch; about the last ten batches matter."""
_MAX_SLOWDOWN = 4.0
"""Upper limit of a measurement, as a multiple of the expected duration. A process that was stopped
for a second says little about the next batch; a lasting slowdown is learned after a few more."""
_MIN_SPREAD = 0.1
"""Minimum standard deviation of the batch sizes, relative to their mean, to estimate b."""


class BatchCost:
    """Duration in seconds of the batches of one operation, as a linear function of their rows."""

    __slots__ = ("_covariance", "_mean_rows", "_mean_s", "_variance")

    def __init__(self, rows: int, seconds: float) -> None:
        self._mean_rows = float(rows)
        self._mean_s = seconds
        self._variance = 0.0
        self._covariance = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Add the measurement of one batch."""
        expected_s = self._mean_s * max(rows / self._mean_rows, 1.0)
        more_rows = rows - self._mean_rows
        more_s = min(seconds, _MAX_SLOWDOWN * expected_s) - self._mean_s
        self._mean_rows += _WEIGHT * more_rows
        self._mean_s += _WEIGHT * more_s
        keep = 1 - _WEIGHT
        self._variance = keep * (self._variance + _WEIGHT * more_rows * more_rows)
        self._covariance = keep * (self._covariance + _WEIGHT * more_rows * more_s)

    def seconds(self, rows: int) -> float:
        """Return the expected seconds of a batch.

        Neither a nor b is negative. If all batches had about the same size, either a or b is 0,
        whichever gives the shorter duration.
        """
        mean_rows, mean_s = self._mean_rows, self._mean_s
        slope = mean_s / mean_rows
        if self._variance > (_MIN_SPREAD * mean_rows) ** 2:
            slope = min(max(self._covariance / self._variance, 0.0), slope)
        elif rows > mean_rows:
            slope = 0.0
        return mean_s + slope * (rows - mean_rows)


class ServiceRate:
    """Measured speed of one engine.

    `slowest_s` is the expected duration of a full batch of the slowest operation, `rows_per_s` the
    average over the last batches of all operations; both are 0 before the first measurement.

    Args:
        max_batch_rows: maximum rows of a batch.
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
        """Average rows per second of the last batches."""
        return self._mean_rows / self._mean_s if self._mean_s else 0.0

    def learn(self, operation: str, rows: int, seconds: float) -> None:
        """Add a batch that took `seconds` from leaving the queue until its callbacks returned."""
        cost = self._costs.get(operation)
        if cost is None:
            cost = self._costs[operation] = BatchCost(rows, seconds)
        else:
            cost.learn(rows, seconds)
        self._full_s[operation] = cost.seconds(self._max_rows)
        self.slowest_s = max(self._full_s.values())
        fade = _WEIGHT if self._mean_s else 1.0
        self._mean_rows += fade * (rows - self._mean_rows)
        self._mean_s += fade * (seconds - self._mean_s)

    def batch_s(self, operation: str, rows: int) -> float:
        """Return the expected seconds of a batch; 0 for an operation without a measurement."""
        cost = self._costs.get(operation)
        return cost.seconds(rows) if cost is not None else 0.0

    def remaining_s(self, running: Batch | None, elapsed_s: float) -> float:
        """Return the expected remaining seconds of a batch that started `elapsed_s` ago."""
        if running is None:
            return 0.0
        return max(self.batch_s(running.operation, running.rows) - elapsed_s, 0.0)

    def queue_wait_s(self, operation: str, queues: Mapping[str, OperationQueue]) -> float:
        """Return the least expected seconds that a new request waits for queued requests.

        It runs in the last batch of its operation, after the full ones. If its operation has no
        queued rows, all rows of other operations are older and run first. Otherwise at least one
        batch of each operation with an older head runs first.
        """
        own = queues.get(operation)
        own_rows = own.rows if own is not None else 0
        seconds = own_rows // self._max_rows * self.batch_s(operation, self._max_rows)
        head_ns = own.head().submitted_ns if own is not None and own_rows else None
        for other, queue in queues.items():
            if other == operation or not queue.rows:
                continue
            if head_ns is None:
                seconds += self._total_s(other, queue.rows)
            elif queue.head().submitted_ns < head_ns:
                seconds += self.batch_s(other, min(queue.rows, self._max_rows))
        return seconds

    def dequeue_s(self, rows: int, queues: Mapping[str, OperationQueue]) -> float:
        """Return the expected seconds until `rows` queued rows have left, if a batch starts now.

        Assumes that each operation leaves in proportion to its queued rows.
        """
        waiting = sum(queue.rows for queue in queues.values())
        if not waiting:
            return 0.0
        total_s = sum(self._total_s(operation, queue.rows) for operation, queue in queues.items())
        batches = sum(-(-queue.rows // self._max_rows) for queue in queues.values())
        # The rows of a batch leave the queue when it starts: the last batch need not have run.
        needed = -(-rows * batches // waiting)
        return max(needed - 1, 0) * total_s / batches

    def _total_s(self, operation: str, rows: int) -> float:
        full, rest = divmod(rows, self._max_rows)
        seconds = full * self.batch_s(operation, self._max_rows)
        return seconds + self.batch_s(operation, rest) if rest else seconds
