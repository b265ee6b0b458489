"""Checks answers under load: the same request must give the same answer as at rest.

Every request of the pool is deterministic: draws carry a seed. Before the load each is sent once,
alone, and its answer is the reference; that is also where a request that cannot work fails. Under
load, a share of the replies is compared with it: seeds and row numbers exactly, arrays within the
tolerance that holds between batches of different sizes. This finds rows that were swapped between
callers, which no status code does.
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

# Parts of a reply by name; arrays within a tolerance, everything else exactly.
ReplyParts: TypeAlias = Mapping[str, Any]
ReplyReader: TypeAlias = Callable[[bytes], ReplyParts]

_QUEUE = 256  # replies that wait to be compared; beyond it they are not chosen
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class ReferenceReply:
    """The answer to one request of the pool."""

    parts: ReplyParts  # those of a stream's messages joined; empty where answers may change
    read: ReplyReader  # of another reply, a module's function so that it pickles
    tolerance: float  # absolute, for floats of magnitude 1


@dataclass
class ValidationCounts:
    """What was found."""

    checked: int = 0
    wrong: int = 0
    incomparable: int = 0  # another version of the model answered
    skipped: int = 0  # chosen, but more than can be compared in time
    examples: list[str] = field(default_factory=list)  # what was wrong, some of it

    def merge(self, other: ValidationCounts) -> None:
        """Add another one."""
        self.checked += other.checked
        self.wrong += other.wrong
        self.incomparable += other.incomparable
        self.skipped += other.skipped
        self.examples = (self.examples + other.examples)[:_EXAMPLES]


class ReplyValidator:
    """Compares a share of the replies, in a thread of its own."""

    def __init__(
        self, workload: Workload, references: Sequence[ReferenceReply], share: float
    ) -> None:
        self._labels = [kind.label for kind in workload.kinds]
        self._references = references
        self._comparable = [bool(reference.parts) for reference in references]
        self._verdicts = ValidationCounts()
        self._lock = threading.Lock()
        self._every = max(round(1 / share), 1) if share > 0 else 0
        self._seen = 0
        self._queue: queue.Queue[tuple[Request, bytes] | None] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        if references and self._every:
            self._thread = threading.Thread(target=self._compare, name="load-judge", daemon=True)
            self._thread.start()

    def on_reply(self, request: Request, message: bytes) -> None:
        """Choose a reply or not; called on the way of every call."""
        if not self._every or not self._comparable[request.number]:
            return
        self._seen += 1
        if self._seen % self._every:
            return
        try:
            self._queue.put_nowait((request, message))
        except queue.Full:
            with self._lock:
                self._verdicts.skipped += 1

    def take(self) -> ValidationCounts:
        """Return what is new."""
        with self._lock:
            verdicts, self._verdicts = self._verdicts, ValidationCounts()
        return verdicts

    @property
    def busy(self) -> bool:
        """Whether chosen replies wait to be compared."""
        return self._queue.unfinished_tasks > 0

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _compare(self) -> None:
        while (item := self._queue.get()) is not None:
            request, message = item
            try:
                found = judge(self._references[request.number], message)
            except Exception as error:  # noqa: BLE001 - a reply that cannot be read is wrong
                found = f"it cannot be read: {error}"
            with self._lock:
                if found is None:
                    self._verdicts.incomparable += 1
                else:
                    self._verdicts.checked += 1
                    if found:
                        self._verdicts.wrong += 1
                        label = self._labels[request.kind]
                        self._verdicts.examples.append(
                            f"{label}, request {request.number} of the pool: {found}"
                        )
                        del self._verdicts.examples[_EXAMPLES:]
            self._queue.task_done()
        self._queue.task_done()


def judge(reference: ReferenceReply, message: bytes) -> str | None:
    """Return "" for the expected answer, what is wrong with it, or None for another model's."""
    parts = reference.read(message)
    expected = reference.parts
    if parts.get("digest") != expected.get("digest"):
        return None
    if "offset" in parts:
        expected = _rows_of(expected, parts)
    return difference(expected, parts, reference.tolerance)


def difference(expected: ReplyParts, found: ReplyParts, tolerance: float) -> str:
    """Return what is different, "" for nothing."""
    if expected.keys() != found.keys():
        return f"it has {sorted(found)}; expected {sorted(expected)}"
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
        # Rounding can fall either way where the float before it lies between two integers.
        apart = np.abs(want.astype(np.int64) - have.astype(np.int64)).max()
        limit = 1 if want.dtype == np.uint8 else 0
        return f"differs by up to {apart}" if apart > limit else ""
    wide, other = want.astype(np.float64), have.astype(np.float64)
    allowed = max(tolerance, 2e-3 if want.dtype == np.float16 else 0.0)
    # Relative above magnitude 1, where latents and sums live.
    apart_by = np.abs(wide - other) / np.maximum(np.abs(wide), 1.0)
    worst = float(np.nan_to_num(apart_by, nan=np.inf).max())
    return f"differs by up to {worst:.3g}; allowed {allowed:g}" if worst > allowed else ""


def _rows_of(whole: ReplyParts, chunk: ReplyParts) -> ReplyParts:
    """Return the rows of a whole stream that a chunk should hold."""
    start = chunk["offset"] - whole["offset"]
    rows = slice(start, start + len(chunk["images"])) if start >= 0 else slice(0, 0)
    cut = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in whole.items()}
    return {**cut, "offset": chunk["offset"]}
