"""Validation of replies under load against reference replies.

Each request of the pool is deterministic, because requests for samples carry a seed. Each is sent
once before the load, one at a time, and the reply is the reference. Under load, a share of the
replies is compared with the references: seeds and row numbers exactly, arrays within the tolerance
that holds between batches of different sizes. This detects rows that the server swapped between
calls, which no status code reports.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from latentserve_client.load.plan.workload import Request, Workload

# Parts of a reply by name; arrays are compared within a tolerance, other values exactly.
ReplyParts: TypeAlias = Mapping[str, Any]
ReplyReader: TypeAlias = Callable[[bytes], ReplyParts]

_QUEUE = 256  # replies waiting for comparison; further ones are skipped
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class ReferenceReply:
    """Expected reply to one request of the pool."""

    parts: ReplyParts  # of all messages of a stream, joined; empty if replies may vary
    read: ReplyReader  # a module-level function, so that it is picklable
    tolerance: float  # absolute, for floats of magnitude 1


@dataclass
class ValidationCounts:
    """Counts of compared replies."""

    checked: int = 0
    wrong: int = 0
    incomparable: int = 0  # replies of another model version
    skipped: int = 0  # selected, but the queue was full
    examples: list[str] = field(default_factory=list)  # descriptions of some wrong replies

    def merge(self, other: ValidationCounts) -> None:
        """Add other counts."""
        self.checked += other.checked
        self.wrong += other.wrong
        self.incomparable += other.incomparable
        self.skipped += other.skipped
        self.examples = (self.examples + other.examples)[:_EXAMPLES]


class ReplyValidator:
    """Compares a share of the replies in a separate thread."""

    def __init__(
        self, workload: Workload, references: Sequence[ReferenceReply], share: float
    ) -> None:
        self._labels = [kind.label for kind in workload.kinds]
        self._references = references
        self._comparable = [bool(reference.parts) for reference in references]
        self._counts = ValidationCounts()
        self._lock = threading.Lock()
        self._every = max(round(1 / share), 1) if share > 0 else 0
        self._seen = 0
        self._queue: queue.Queue[tuple[Request, bytes] | None] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        if references and self._every:
            self._thread = threading.Thread(target=self._compare, name="load-validate", daemon=True)
            self._thread.start()

    def on_reply(self, request: Request, message: bytes) -> None:
        """Select the reply for comparison or ignore it; called for every reply."""
        if not self._every or not self._comparable[request.number]:
            return
        self._seen += 1
        if self._seen % self._every:
            return
        try:
            self._queue.put_nowait((request, message))
        except queue.Full:
            with self._lock:
                self._counts.skipped += 1

    def take(self) -> ValidationCounts:
        """Return the counts since the previous call."""
        with self._lock:
            counts, self._counts = self._counts, ValidationCounts()
        return counts

    @property
    def busy(self) -> bool:
        """Whether selected replies wait for comparison."""
        return self._queue.unfinished_tasks > 0

    def close(self) -> None:
        """Stop the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _compare(self) -> None:
        while (item := self._queue.get()) is not None:
            request, message = item
            try:
                found = check_reply(self._references[request.number], message)
            except Exception as error:  # noqa: BLE001 - an unreadable reply is wrong
                found = f"unreadable reply: {error}"
            with self._lock:
                if found is None:
                    self._counts.incomparable += 1
                else:
                    self._counts.checked += 1
                    if found:
                        self._counts.wrong += 1
                        label = self._labels[request.kind]
                        self._counts.examples.append(
                            f"{label}, request {request.number} of the pool: {found}"
                        )
                        del self._counts.examples[_EXAMPLES:]
            self._queue.task_done()
        self._queue.task_done()


def check_reply(reference: ReferenceReply, message: bytes) -> str | None:
    """Return "" for a correct reply, else the difference; None for another model version."""
    parts = reference.read(message)
    expected = reference.parts
    if parts.get("digest") != expected.get("digest"):
        return None
    if "offset" in parts:
        expected = _rows_of(expected, parts)
    return difference(expected, parts, reference.tolerance)


def difference(expected: ReplyParts, found: ReplyParts, tolerance: float) -> str:
    """Return a description of the first difference, or ""."""
    if expected.keys() != found.keys():
        return f"parts {sorted(found)}; expected {sorted(expected)}"
    for name, want in expected.items():
        have = found[name]
        if isinstance(want, np.ndarray):
            text = _array_difference(want, have, tolerance)
        else:
            text = "" if want == have else f"{have}; expected {want}"
        if text:
            return f"{name}: {text}"
    return ""


def _array_difference(want: NDArray[Any], have: NDArray[Any], tolerance: float) -> str:
    if want.shape != have.shape or want.dtype != have.dtype:
        return f"{have.dtype} {list(have.shape)}; expected {want.dtype} {list(want.shape)}"
    if not want.size:
        return ""
    if want.dtype.kind != "f":
        # Rounding may go either way if the float is halfway between two integers.
        apart = np.abs(want.astype(np.int64) - have.astype(np.int64)).max()
        limit = 1 if want.dtype == np.uint8 else 0
        return f"differs by up to {apart}" if apart > limit else ""
    wide, other = want.astype(np.float64), have.astype(np.float64)
    allowed = max(tolerance, 2e-3 if want.dtype == np.float16 else 0.0)
    # Relative above magnitude 1, for latents and squared errors.
    apart_by = np.abs(wide - other) / np.maximum(np.abs(wide), 1.0)
    worst = float(np.nan_to_num(apart_by, nan=np.inf).max())
    return f"differs by up to {worst:.3g}; allowed {allowed:g}" if worst > allowed else ""


def _rows_of(whole: ReplyParts, chunk: ReplyParts) -> ReplyParts:
    """Return the rows of the whole stream that correspond to a chunk."""
    start = chunk["offset"] - whole["offset"]
    rows = slice(start, start + len(chunk["images"])) if start >= 0 else slice(0, 0)
    cut = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in whole.items()}
    return {**cut, "offset": chunk["offset"]}
