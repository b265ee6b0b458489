"""Call records: one row of integers per finished call."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    "kind",  # index in `Workload.kinds`
    "code",  # gRPC status code, 0 is OK
    "rows",  # images or latent vectors
    "attempts",  # 1 without a retry
    "intended_ns",  # intended send time on the monotonic clock
    "sent_ns",  # send time of the first attempt
    "first_ns",  # arrival of the first message of a stream; 0 for unary calls
    "end_ns",  # end of the last attempt
    "queue_ns",  # from the Timings of the reply; -1 without Timings
    "compute_ns",  # as queue_ns
    "batch_rows",  # as queue_ns
)
COLUMN = {name: index for index, name in enumerate(COLUMNS)}

Record: TypeAlias = tuple[int, ...]
Records: TypeAlias = NDArray[np.int64]  # [n, len(COLUMNS)]


class CallRecorder:
    """Collects records from any thread until they are taken."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        # Bound once, because every call uses it. Appending is atomic.
        self.append = self._records.append

    def take(self) -> Records:
        """Return and remove the records since the previous call."""
        count = len(self._records)
        taken = self._records[:count]
        # Records appended in the meantime follow them and remain.
        del self._records[:count]
        return np.array(taken, np.int64).reshape(count, len(COLUMNS))


def column(records: Records, name: str) -> NDArray[np.int64]:
    """Return one column of the records by its name."""
    values: NDArray[np.int64] = records[:, COLUMN[name]]
    return values
