"""One request in the queue: its rows, its ticket, and how it ended.

Made for every call, hence the plain classes with slots: a frozen dataclass costs four times as
much to make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import CallError

Floats = NDArray[np.float32]

NEVER_NS = float("inf")
"""The deadline of a request that has none."""


class Rows:
    """One input of one request: an array of any real dtype, [n, ...], divided by `divisor`.

    The division happens while the rows are written into the batch, so that uint8 images
    cost no copy of their own.
    """

    __slots__ = ("array", "divisor")

    def __init__(self, array: NDArray[Any], divisor: float = 1.0) -> None:
        self.array = array
        self.divisor = divisor

    def write(self, out: Floats, start: int, stop: int) -> None:
        """Write rows `start` to `stop` as float32 into `out`, which has that many rows."""
        part = self.array if stop - start == len(self.array) else self.array[start:stop]
        if self.divisor == 1.0:
            np.copyto(out, part)
        else:
            np.divide(part, np.float32(self.divisor), out=out)

    def as_float32(self) -> Floats:
        """Return all rows as float32, in units of the model."""
        out = np.empty(self.array.shape, dtype=np.float32)
        self.write(out, 0, len(out))
        return out


class Completion:
    """How a request ended: `outputs`, one array [n, ...] each, or else `error`.

    `submitted_ns` is when it came, on the batcher's monotonic clock. `queue_ns` is the wait until
    the first batch with rows of the request, `compute_ns` the engine's time for all its batches,
    `batch_rows` the rows of the largest of them.

    The outputs of a request that ran in one batch are views of the batch's outputs: a copy would
    cost every call more than it saves. So whoever gets a completion builds its reply at once and
    lets go of it: as long as it is kept, the outputs of its neighbours are kept with it.
    """

    __slots__ = ("batch_rows", "compute_ns", "error", "outputs", "queue_ns", "submitted_ns")

    def __init__(
        self,
        outputs: tuple[Floats, ...] = (),
        error: CallError | None = None,
        submitted_ns: int = 0,
        queue_ns: int = 0,
        compute_ns: int = 0,
        batch_rows: int = 0,
    ) -> None:
        self.outputs = outputs
        self.error = error
        self.submitted_ns = submitted_ns
        self.queue_ns = queue_ns
        self.compute_ns = compute_ns
        self.batch_rows = batch_rows


Done = Callable[[Completion], None]


class RequestOwner(Protocol):
    """Where a ticket was made; `batcher.Batcher` is the real one."""

    def forget(self, request: QueuedRequest) -> None:
        """Drop a request without an answer."""


class QueuedRequest:
    """One submitted request. Made by `Batcher.submit`; only `cancel` is for callers.

    `row_bytes` is what one row of all inputs takes while it waits, as it was sent: a uint8 image
    a quarter of a float32 one. `due_ns` is when its batch must go even if it is not full.
    """

    __slots__ = (
        *("_owner", "batch_rows", "compute_ns", "cut_rows", "deadline_ns", "done", "due_ns"),
        *("finished_rows", "inputs", "operation", "outputs", "queue_ns", "row_bytes", "rows"),
        *("settled", "submitted_ns"),
    )

    def __init__(
        self,
        owner: RequestOwner,
        operation: str,
        inputs: tuple[Rows, ...],
        deadline_ns: float,
        done: Done,
        now_ns: int,
    ) -> None:
        self._owner = owner
        self.operation = operation
        self.inputs = inputs
        first = inputs[0].array
        self.rows = rows = len(first)
        nbytes = first.nbytes
        for more in inputs[1:]:
            nbytes += more.array.nbytes
        self.row_bytes = nbytes // rows
        self.deadline_ns = deadline_ns
        self.done = done
        self.submitted_ns = now_ns
        self.due_ns: float = now_ns
        self.cut_rows = 0  # rows that are in some batch already
        self.finished_rows = 0
        self.outputs: tuple[Floats, ...] = ()
        self.queue_ns = 0
        self.compute_ns = 0
        self.batch_rows = 0
        self.settled = False

    def cancel(self) -> None:
        """Forget the request: its callback will not be called. Safe from any thread.

        It may be called all the same where the answer was on its way already.
        """
        self._owner.forget(self)
