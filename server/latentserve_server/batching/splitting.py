"""What is run again of a batch that failed, so that as few callers as possible fail with it.

* No memory on the device: both halves, once. A half that does not fit either fails, for all its
  callers.
* Anything else: every caller alone, so that only the bad one fails.

Nothing is remembered of a batch that did not fit. The largest batch was run before the model was
ready, so that memory was taken since by something else, which may go as it came: a smaller limit
kept beyond this batch would need a rule of when to lift it, and what it saves is one allocation
that fails before anything was computed.
"""

from __future__ import annotations

from latentserve_server.batching.queue import Batch, Slice


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the first half of the rows of a batch, of at least two, and the other half.

    A caller whose rows lie in both gets them joined, like any that is larger than a batch.
    """
    middle = (batch.rows + 1) // 2
    first: list[Slice] = []
    second: list[Slice] = []
    before = 0
    for part in batch.slices:
        border = part.start + middle - before
        if part.stop <= border:
            first.append(part)
        elif part.start >= border:
            second.append(part)
        else:
            first.append(Slice(part.request, part.start, border))
            second.append(Slice(part.request, border, part.stop))
        before += part.rows
    operation = batch.operation
    return Batch(operation, first, middle), Batch(operation, second, batch.rows - middle)


def singles(batch: Batch) -> list[Batch]:
    """Return the rows of each caller as a batch of its own."""
    return [Batch(batch.operation, [part], part.rows) for part in batch.slices]


def still_wanted(batch: Batch) -> Batch | None:
    """Return a batch without those who have their answer or left; None if nobody is there."""
    slices = [part for part in batch.slices if not part.request.settled]
    if not slices:
        return None
    return Batch(batch.operation, slices, sum(part.rows for part in slices))
