"""Runs a batch on the engine and gives every caller its own rows, whoever else is in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from latentserve_server.batching.callbacks import BatcherCallbacks
from latentserve_server.batching.queue import Batch
from latentserve_server.batching.request import Floats, QueuedRequest
from latentserve_server.batching.splitting import halves, singles, still_wanted
from latentserve_server.errors import CallError, EngineFailure, OutOfMemory

log = logging.getLogger(__name__)

Settle = Callable[[list[QueuedRequest], CallError | None], None]
"""Answers requests, with their outputs or with an error; whoever has an answer keeps it."""


class Runner(Protocol):
    """What the batcher needs of an engine."""

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        """Run one batch; every input and output has the same number of rows.

        The inputs are overwritten by the next batch; the outputs are not, callers hold views of
        them. Raises OutOfMemory where fewer rows may fit.
        """


class BatchExecutor:
    """The running side of a batcher, on one thread at a time.

    `progress_ns` is when the engine last finished a batch, for good or ill.

    Args:
        runner: runs the batches.
        name: of the model, in the log.
        max_batch_rows: rows of one batch, at most.
        observer: told of what happens.
        clock_ns: monotonic nanoseconds.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        max_batch_rows: int,
        callbacks: BatcherCallbacks,
        clock_ns: Callable[[], int],
    ) -> None:
        self._runner = runner
        self._name = name
        self._max_batch_rows = max_batch_rows
        self._callbacks = callbacks
        self._clock_ns = clock_ns
        self._buffers: dict[str, tuple[Floats, ...]] = {}
        self.progress_ns = 0

    def run(self, batch: Batch, cut_ns: int, settle: Settle) -> int | None:
        """Run a batch that was cut at `cut_ns`, and answer everybody in it.

        Return the nanoseconds that the engine took, None where it failed.
        """
        for request, start, _ in batch.slices:
            if start == 0:
                request.queue_ns = cut_ns - request.submitted_ns
                self._callbacks.waited(batch.operation, request.queue_ns / 1e9)
        return self._attempt(batch, cut_ns, settle, halved=False)

    def _attempt(
        self, batch: Batch, started_ns: int, settle: Settle, *, halved: bool
    ) -> int | None:
        try:
            outputs = self._run_engine(batch)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises, callers get an answer
            self.progress_ns = self._clock_ns()
            self._recover(batch, error, settle, halved=halved)
            return None
        self.progress_ns = self._clock_ns()
        elapsed_ns = self.progress_ns - started_ns
        self._callbacks.ran(batch.operation, batch.rows, elapsed_ns / 1e9)
        self._deliver(batch, outputs, elapsed_ns, settle)
        return elapsed_ns

    def _run_engine(self, batch: Batch) -> Sequence[Floats]:
        operation, slices, batch_rows = batch
        buffers = self._buffers.get(operation) or self._make_buffers(batch)
        offset = 0
        for request, start, stop in slices:
            end = offset + stop - start
            for buffer, rows in zip(buffers, request.inputs, strict=True):
                rows.write(buffer[offset:end], start, stop)
            offset = end
        outputs = self._runner.run(operation, [buffer[:batch_rows] for buffer in buffers])
        for output in outputs:
            if len(output) != batch_rows:
                raise RuntimeError(f"the graph gave {len(output)} rows for {batch_rows}")
        return outputs

    def _make_buffers(self, batch: Batch) -> tuple[Floats, ...]:
        """Return new input buffers of the operation; one thread runs one batch at a time."""
        buffers = self._buffers[batch.operation] = tuple(
            np.empty((self._max_batch_rows, *rows.array.shape[1:]), dtype=np.float32)
            for rows in batch.slices[0].request.inputs
        )
        return buffers

    def _deliver(
        self, batch: Batch, outputs: Sequence[Floats], elapsed_ns: int, settle: Settle
    ) -> None:
        finished: list[QueuedRequest] = []
        offset = 0
        for request, start, stop in batch.slices:
            end = offset + stop - start
            if not request.settled:
                request.compute_ns += elapsed_ns
                if batch.rows > request.batch_rows:
                    request.batch_rows = batch.rows
                request.finished_rows += stop - start
                try:
                    if stop - start == request.rows:  # the common case: no copy, see Completion
                        request.outputs = tuple([output[offset:end] for output in outputs])
                    else:
                        _join(request, start, stop, [output[offset:end] for output in outputs])
                except Exception as error:  # for example MemoryError while rows are joined
                    log.exception("%s: an answer could not be assembled", self._name)
                    settle([request], _failure(error))
                else:
                    if request.finished_rows == request.rows:
                        finished.append(request)
            offset = end
        settle(finished, None)

    def _recover(self, batch: Batch, error: Exception, settle: Settle, *, halved: bool) -> None:
        """Run what failed again as `recovery` says, or fail those who were in it."""
        callers = len(batch.slices)
        lacks_memory = isinstance(error, OutOfMemory)
        if lacks_memory and not halved and batch.rows > 1:
            log.warning(
                "%s: the device has no memory for %s of %d rows (%s); running it in two halves",
                *(self._name, batch.operation, batch.rows, error),
            )
            self._callbacks.halved(batch.operation)
            self._run_again(halves(batch), settle, halved=True)
        elif callers > 1 and not lacks_memory:
            log.warning(
                "%s: a batch of %d callers failed (%s); running them one by one",
                *(self._name, callers, error),
            )
            self._run_again(singles(batch), settle, halved=halved)
        else:
            log.error(
                "%s: %s failed for %d rows", self._name, batch.operation, batch.rows, exc_info=error
            )
            for request, _, _ in batch.slices:
                if not request.settled:
                    self._callbacks.failed(batch.operation)
                    settle([request], _failure(error))

    def _run_again(self, batches: Sequence[Batch], settle: Settle, *, halved: bool) -> None:
        for batch in batches:
            wanted = still_wanted(batch)
            if wanted is not None:
                self._attempt(wanted, self._clock_ns(), settle, halved=halved)


def _join(request: QueuedRequest, start: int, stop: int, outputs: Sequence[Floats]) -> None:
    """Write a part into the answer of its request, whose memory is allocated with the first one."""
    if not request.outputs:
        request.outputs = tuple(
            np.empty((request.rows, *output.shape[1:]), dtype=output.dtype) for output in outputs
        )
    for whole, output in zip(request.outputs, outputs, strict=True):
        whole[start:stop] = output


def _failure(error: Exception) -> EngineFailure:
    failure = EngineFailure(f"the engine failed: {error}")
    failure.__cause__ = error
    return failure
