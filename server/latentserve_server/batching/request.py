"""Queued request: its input rows, its state in the batcher, its completion.

These objects are created for every call, hence plain classes with slots: creating a frozen
dataclass takes four times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import CallError

Floats = NDArray[np.float32]

NEVER_NS = float("inf")
"""The deadline of a request without one."""


class Rows:
    """One input of one request: an array of any real dtype, [n, ...], divided by `divisor`.

    The rows are divided while they are written into the batch, so that uint8 images need no
    additional copy.
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
        """Return all rows as float32, divided by `divisor`."""
        out = np.empty(self.array.shape, dtype=np.float32)
        self.write(out, 0, len(out))
        return out


Inputs = tuple[Rows, ...]
"""The inputs of one request, with one number of rows."""


class Completion:
    """Result of a request: `outputs`, arrays of shape [n, ...], or else `error`.

    `submitted_ns` is the time of submission on the batcher's monotonic clock. `queue_ns` is the
    wait until the first batch with rows of the request, `compute_ns` the engine's time for all its
    batches, `batch_rows` the rows of the largest of them.

    The outputs of a request that ran in one batch are views of the batch's outputs: a copy would
    cost every call more than it saves. The receiver should therefore build its reply at once and
    release the completion: it keeps the outputs of the whole batch in memory.
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


def _ignore(completion: Completion) -> None:
    """Callback of a completed request."""


class RequestOwner(Protocol):
    """The interface of a batcher that its requests use; implemented by `batcher.Batcher`."""

    def cancel(self, request: QueuedRequest) -> None:
        """Drop a request without calling its callback."""


class QueuedRequest:
    """One submitted request. Created by `Batcher.submit`; only `cancel` is public.

    `row_bytes` is the size of one row of all inputs in their dtype as sent: a uint8 image has a
    quarter of the bytes of a float32 one. `due_ns` is when its batch must start even if not full.
    `completed` is set once the request has a result or was dropped.
    """

    __slots__ = (
        *("_owner", "batch_rows", "completed", "compute_ns", "deadline_ns", "dequeued_rows"),
        *("done", "due_ns", "finished_rows", "inputs", "operation", "outputs", "queue_ns"),
        *("row_bytes", "rows", "submitted_ns"),
    )

    def __init__(
        self,
        owner: RequestOwner,
        operation: str,
        inputs: Inputs,
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
        self.dequeued_rows = 0  # rows that left the queue in a batch
        self.finished_rows = 0
        self.outputs: tuple[Floats, ...] = ()
        self.queue_ns = 0
        self.compute_ns = 0
        self.batch_rows = 0
        self.completed = False

    def complete(self, error: CallError | None) -> None:
        """Call the callback with the outputs, or with an error. Called once, by the batcher.

        A transport may keep this object until its reply is written, so the callback, the outputs
        and the inputs are released; the inputs only if no batch can still read them.
        """
        outputs, self.outputs = self.outputs, ()
        done, self.done = self.done, _ignore
        if error is None:
            self.inputs = ()
        else:
            outputs = ()
        done(
            Completion(
                outputs,
                error,
                self.submitted_ns,
                self.queue_ns,
                self.compute_ns,
                self.batch_rows,
            )
        )

    def cancel(self) -> None:
        """Drop the request, without a call of its callback. Safe from any thread.

        If its result is being delivered at this time, the callback may still be called.
        """
        self._owner.cancel(self)
