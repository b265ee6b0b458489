"""How long a batch of so many rows takes, learned from the batches that ran."""

from __future__ import annotations

from math import inf

# Of the newest batch in the moving average. A batch takes longer than another of its size
# because the machine was busy, and rarely because the model became slower.
_WEIGHT_FASTER = 0.3
_WEIGHT_SLOWER = 0.05


class LatencyModel:
    """Seconds of a batch, for one operation, by the power of two that its rows reach.

    One row costs far more than a 64th of 64 rows, so one rate for all sizes would not do.
    Not safe for threads: written by whoever runs the batches, read by anyone, where a value
    that is late by a batch does no harm.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: list[float] = []  # 0: never seen

    def learn(self, rows: int, seconds: float) -> None:
        """Take in a batch that ran."""
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
        """Return the seconds that a batch of `rows` will take; infinity before any has run.

        Of a size that was never seen, the next larger one is taken, or else the largest, with
        as much more time as there are more rows: both say too much rather than too little.
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
