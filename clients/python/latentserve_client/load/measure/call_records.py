"""One row of figures per finished call."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "kind",  # position in the workload's kinds
    "code",  # gRPC status code, 0 is OK
    "rows",  # images or latents
    "attempts",  # 1 where it was not tried again
    "intended_ns",  # monotonic clock: when it was meant to be sent
    "sent_ns",  # when its first attempt was sent
    "first_ns",  # when the first message of a stream came; 0 for others
    "end_ns",  # when it ended
    "queue_ns",  # from the reply's Timings; -1 where there are none
    "compute_ns",  # the same
    "batch_rows",  # the same
)
COLUMN = {name: index for index, name in enumerate(COLUMNS)}

Record: TypeAlias = tuple[int, ...]
Records: TypeAlias = NDArray[np.int64]  # [n, len(COLUMNS)]


class CallRecorder:
    """Collects rows from any thread, until they are taken."""

    def __init__(self) -> None:
        self._rows: list[Record] = []
        # Bound once: this is on the way of every call. Appending is atomic.
        self.append = self._rows.append

    def take(self) -> Records:
        """Return the rows since the last time, and forget them."""
        count = len(self._rows)
        taken = self._rows[:count]
        # What was appended meanwhile is behind them and stays.
        del self._rows[:count]
        return np.array(taken, np.int64).reshape(count, len(COLUMNS))


def empty() -> Records:
    """Return no rows."""
    return np.empty((0, len(COLUMNS)), np.int64)


def column(rows: Records, name: str) -> NDArray[np.int64]:
    """Return one column of the rows."""
    values: NDArray[np.int64] = rows[:, COLUMN[name]]
    return values
