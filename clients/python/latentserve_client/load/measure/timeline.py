"""Statistics over time: slots of equal width."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from latentserve_client.load.measure.call_records import Rows, column
from latentserve_client.load.measure.histogram import COARSE, Histogram

_MAX_SLOTS = 600


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
        since_ns = column(rows, "end_ns") - self.start_ns
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
        good = rows[column(rows, "code") == 0]
        slot.latency.add(column(good, "end_ns") - column(good, "intended_ns"))
        slot.good += len(good)
        slot.rows += int(column(good, "rows").sum())
        slot.errors += len(rows) - len(good)

    def _widen(self) -> None:
        for first, second in zip(self.slots[::2], self.slots[1::2], strict=False):
            first.merge(second)
        self.slots = self.slots[::2]
        self.width_s *= 2
