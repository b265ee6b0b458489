"""Splits a failed batch into smaller batches to retry.

The aim is that few requests fail:

* Out of memory on the device: retry both halves, once. If a half does not fit either, all its
  requests fail.
* Any other error: retry each request alone, so that only the faulty one fails.

The batcher does not lower its batch size after a batch that did not fit. The warm-up ran the
largest batch before the model was ready, so something else has taken the memory since and may free
it at any time. A lower limit would need a rule to raise it again, and would save only one
allocation that fails before anything is computed.
"""

from __future__ import annotations

from latentserve_server.batching.queue import Batch, RequestSlice


def split_halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the first and the second half of the rows of a batch of at least two rows.

    The outputs of a request in both halves are joined, as for a request larger than a batch.
    """
    middle = (batch.rows + 1) // 2
    first: list[RequestSlice] = []
    second: list[RequestSlice] = []
    offset = 0
    for part in batch.slices:
        split_at = part.start + middle - offset
        if part.stop <= split_at:
            first.append(part)
        elif part.start >= split_at:
            second.append(part)
        else:
            first.append(RequestSlice(part.request, part.start, split_at))
            second.append(RequestSlice(part.request, split_at, part.stop))
        offset += part.rows
    operation = batch.operation
    return Batch(operation, first, middle), Batch(operation, second, batch.rows - middle)


def split_requests(batch: Batch) -> list[Batch]:
    """Return one batch for each request of `batch`."""
    return [Batch(batch.operation, [part], part.rows) for part in batch.slices]


def without_completed(batch: Batch) -> Batch | None:
    """Return the batch without its completed requests, None if none is left."""
    slices = [part for part in batch.slices if not part.request.completed]
    if not slices:
        return None
    return Batch(batch.operation, slices, sum(part.rows for part in slices))
