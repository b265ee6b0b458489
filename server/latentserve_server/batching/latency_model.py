"""Latency model: the expected duration of a batch by its number of rows."""

from __future__ import annotations

from math import inf

# Weights of the newest batch in the moving average. A batch that is slower than others of its size
# usually ran on a busy machine; rarely did the model become slower.
_WEIGHT_FASTER = 0.3
_WEIGHT_SLOWER = 0.05


class LatencyModel:
    """Moving averages of the seconds of a batch of one operation, by powers of two of its rows.

    One row takes far longer than a 64th of 64 rows, so a single rate for all sizes is not enough.
    Not thread-safe: only the thread that runs the batches writes. Other threads may read; a value
    that is one batch old is good enough for them.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: list[float] = []  # by rows.bit_length(); 0: not measured

    def learn(self, rows: int, seconds: float) -> None:
        """Add the measurement of one batch."""
        size = rows.bit_length()
        known = self._seconds
        if len(known) <= size:
            known.extend([0.0] * (size + 1 - len(known)))
        before = known[size]
        if not before:
            known[size] = seconds
        else:
            weight = _WEIGHT_FASTER if seconds < before else _WEIGHT_SLOWER
            known[size] = before + (seconds - before) * weight

    def expected_s(self, rows: int) -> float:
        """Return the expected seconds of a batch of `rows`; infinity before the first batch.

        For a size without a measurement, returns the value of the next larger size. Above the
        largest measured size, scales its value with the rows. Both overestimate.
        """
        known, size = self._seconds, rows.bit_length()
        if size < len(known) and known[size]:
            return known[size]
        for larger in known[size + 1 :]:
            if larger:
                return larger
        for smaller in range(min(size, len(known)) - 1, -1, -1):
            if known[smaller]:
                return known[smaller] * 2.0 ** (size - smaller)
        return inf
