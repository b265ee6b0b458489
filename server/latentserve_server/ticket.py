"""One request in the queue: its rows, its ticket, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import CallError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """One input of one request: an array of any real dtype, [n, ...], divided by `divisor`.

    The division happens while the rows are written into the batch, so that uint8 images
    cost no copy of their own.
    """

    array: NDArray[Any]
    divisor: float = 1.0

    def write(self, out: Floats, start: int, stop: int) -> None:
        """Write rows `start` to `stop` as float32 into `out`, which has that many rows."""
        part = self.array[start:stop]
        if self.divisor == 1.0:
            np.copyto(out, part, casting="same_kind")
        else:
            np.divide(part, np.float32(self.divisor), out=out)

    def as_float32(self) -> Floats:
        """Return all rows as float32, in units of the model."""
        out = np.empty(self.array.shape, dtype=np.float32)
        self.write(out, 0, len(out))
        return out


@dataclass(frozen=True)
class Completion:
    """How a request ended: `outputs`, one array [n, ...] each, or else `error`.

    `submitted_ns` is when it came, on the batcher's monotonic clock. `queue_ns` is the wait until
    the first batch with rows of the request, `compute_ns` the engine's time for all its batches,
    `batch_rows` the rows of the largest of them.
    """

    outputs: tuple[Floats, ...] = ()
    error: CallError | None = None
    submitted_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    batch_rows: int = 0


Done = Callable[[Completion], None]


class Ticket:
    """One submitted request. Made by `Batcher.submit`; only `cancel` is for callers."""

    def __init__(
        self,
        forget: Callable[[Ticket], None],
        operation: str,
        inputs: tuple[Rows, ...],
        deadline: float | None,
        done: Done,
        now_ns: int,
    ) -> None:
        self._forget = forget
        self.operation = operation
        self.inputs = inputs
        self.rows = len(inputs[0].array)
        self.deadline = deadline
        self.done = done
        self.submitted_ns = now_ns
        self.cut_rows = 0  # rows that are in some batch already
        self.finished_rows = 0
        self.outputs: tuple[Floats, ...] = ()
        self.queue_ns = 0
        self.compute_ns = 0
        self.batch_rows = 0
        self.settled = False

    def cancel(self) -> None:
        """Forget the request: its callback will not be called. Safe from any thread."""
        self._forget(self)
