"""Batch executor: runs a batch on the engine and splits its outputs by request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from latentserve_server.batching.callbacks import BatcherCallbacks
from latentserve_server.batching.finite import all_finite
from latentserve_server.batching.queue import Batch
from latentserve_server.batching.request import Floats, QueuedRequest
from latentserve_server.batching.splitting import split_halves, split_requests, without_completed
from latentserve_server.errors import CallError, EngineFailure, OutOfMemory, OutputNotFinite

log = logging.getLogger(__name__)

Complete = Callable[[list[QueuedRequest], CallError | None], None]
"""Completes requests with their outputs, or with an error; skips those already completed."""


class Runner(Protocol):
    """The interface of an engine that the batcher uses."""

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        """Run one batch; every input and output has the same number of rows.

        The next batch overwrites the inputs. It must not overwrite the outputs, because completed
        requests hold views of them. Raises OutOfMemory if fewer rows may fit.
        """


class BatchExecutor:
    """Runs the batches of one batcher, on one thread at a time.

    `progress_ns` is when the engine last finished a batch, with or without an error.

    Args:
        runner: runs the batches.
        name: name of the model in the log.
        max_batch_rows: maximum rows of a batch.
        callbacks: called on events.
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

    def run(self, batch: Batch, started_ns: int, complete: Complete) -> int | None:
        """Run a batch that left the queue at `started_ns`, and complete all its requests.

        Return the nanoseconds that the engine took, None if it failed.
        """
        for request, start, _ in batch.slices:
            if start == 0:
                request.queue_ns = started_ns - request.submitted_ns
                self._callbacks.waited(batch.operation, request.queue_ns / 1e9)
        return self._run_once(batch, started_ns, complete, halved=False)

    def _run_once(
        self, batch: Batch, started_ns: int, complete: Complete, *, halved: bool
    ) -> int | None:
        try:
            outputs, finite = self._run_engine(batch)
        except Exception as error:  # noqa: BLE001 - every error must complete the requests
            self.progress_ns = self._clock_ns()
            self._recover(batch, error, complete, halved=halved)
            return None
        self.progress_ns = self._clock_ns()
        elapsed_ns = self.progress_ns - started_ns
        self._callbacks.ran(batch.operation, batch.rows, elapsed_ns / 1e9)
        self._deliver(batch, outputs, finite, elapsed_ns, complete)
        return elapsed_ns

    def _run_engine(self, batch: Batch) -> tuple[Sequence[Floats], bool]:
        """Return the outputs of a batch, and whether all their values are finite."""
        operation, slices, batch_rows = batch
        buffers = self._buffers.get(operation) or self._make_buffers(batch)
        offset = 0
        for request, start, stop in slices:
            end = offset + stop - start
            for buffer, rows in zip(buffers, request.inputs, strict=True):
                rows.write(buffer[offset:end], start, stop)
            offset = end
        outputs = self._runner.run(operation, [buffer[:batch_rows] for buffer in buffers])
        finite = True
        for output in outputs:
            if len(output) != batch_rows:
                raise RuntimeError(f"the graph gave {len(output)} rows for {batch_rows}")
            if not all_finite(output):
                finite = False
        return outputs, finite

    def _make_buffers(self, batch: Batch) -> tuple[Floats, ...]:
        """Return new input buffers for the operation; one set is enough for one batch at a time."""
        buffers = self._buffers[batch.operation] = tuple(
            np.empty((self._max_batch_rows, *rows.array.shape[1:]), dtype=np.float32)
            for rows in batch.slices[0].request.inputs
        )
        return buffers

    def _deliver(
        self,
        batch: Batch,
        outputs: Sequence[Floats],
        finite: bool,
        elapsed_ns: int,
        complete: Complete,
    ) -> None:
        finished: list[QueuedRequest] = []
        offset = 0
        for request, start, stop in batch.slices:
            end = offset + stop - start
            if not request.completed:
                request.compute_ns += elapsed_ns
                if batch.rows > request.batch_rows:
                    request.batch_rows = batch.rows
                request.finished_rows += stop - start
                try:
                    if not finite:
                        _check_rows(start, [output[offset:end] for output in outputs])
                    if stop - start == request.rows:  # the common case: no copy, see Completion
                        request.outputs = tuple([output[offset:end] for output in outputs])
                    else:
                        _copy_rows(request, start, stop, [output[offset:end] for output in outputs])
                except OutputNotFinite as error:
                    self._callbacks.not_finite(batch.operation)
                    complete([request], error)
                except Exception as error:  # for example MemoryError while rows are joined
                    log.exception("%s: the outputs of a request could not be joined", self._name)
                    complete([request], _failure(error))
                else:
                    if request.finished_rows == request.rows:
                        finished.append(request)
            offset = end
        complete(finished, None)

    def _recover(self, batch: Batch, error: Exception, complete: Complete, *, halved: bool) -> None:
        """Retry a failed batch as `splitting` describes, or fail its requests."""
        requests = len(batch.slices)
        out_of_memory = isinstance(error, OutOfMemory)
        if out_of_memory and not halved and batch.rows > 1:
            log.warning(
                "%s: the device has no memory for %s of %d rows (%s); retrying in two halves",
                *(self._name, batch.operation, batch.rows, error),
            )
            self._callbacks.halved(batch.operation)
            self._retry(split_halves(batch), complete, halved=True)
        elif requests > 1 and not out_of_memory:
            log.warning(
                "%s: a batch of %d requests failed (%s); retrying them one by one",
                *(self._name, requests, error),
            )
            self._retry(split_requests(batch), complete, halved=halved)
        else:
            log.error(
                "%s: %s failed for %d rows", self._name, batch.operation, batch.rows, exc_info=error
            )
            for request, _, _ in batch.slices:
                if not request.completed:
                    self._callbacks.failed(batch.operation)
                    complete([request], _failure(error))

    def _retry(self, batches: Sequence[Batch], complete: Complete, *, halved: bool) -> None:
        for batch in batches:
            pending = without_completed(batch)
            if pending is not None:
                self._run_once(pending, self._clock_ns(), complete, halved=halved)


def _copy_rows(request: QueuedRequest, start: int, stop: int, outputs: Sequence[Floats]) -> None:
    """Write rows `start` to `stop` into the outputs of a request; allocate them on first use."""
    if not request.outputs:
        request.outputs = tuple(
            np.empty((request.rows, *output.shape[1:]), dtype=output.dtype) for output in outputs
        )
    for whole, output in zip(request.outputs, outputs, strict=True):
        whole[start:stop] = output


def _check_rows(start: int, outputs: Sequence[Floats]) -> None:
    """Raise OutputNotFinite if the outputs of one request, from its row `start`, are not finite."""
    for output in outputs:
        for row, values in enumerate(output):
            if not all_finite(values):
                raise OutputNotFinite(start + row)


def _failure(error: Exception) -> EngineFailure:
    failure = EngineFailure(f"the engine failed: {error}")
    failure.__cause__ = error
    return failure
