"""Interface of one call, independent of the transport: request bytes in, a Reply out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from latentserve_server.batching.request import Completion
from latentserve_server.repository.model_version import LoadedModel

Work = tuple[LoadedModel, str, int, Completion]
"""Inference behind a reply: the model, the operation, the number of rows, their completion."""


@dataclass(slots=True)
class Reply:
    """A finished call. `build` returns the reply's bytes or raises the CallError.

    `build` is called at most once: it releases the outputs of the engine. `slow` is True if it
    takes milliseconds and should not run on an event loop; then `held_bytes` is the size of the
    outputs, which stay in memory until then. `work` is for traces; None if no engine was needed.
    """

    build: Callable[[], bytes]
    slow: bool = False
    work: Work | None = None
    held_bytes: int = 0


Done = Callable[[Reply], None]


class Call(Protocol):
    """A call in flight."""

    def cancel(self) -> None:
        """Cancel the call. Its callback will not be called."""


class ChunkStream(Protocol):
    """A call with many replies, which the transport requests one after the other."""

    @property
    def exhausted(self) -> bool:
        """Whether every reply was requested."""

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Start the next reply."""


UnaryMethod = Callable[[bytes, float | None, Done], Call]
