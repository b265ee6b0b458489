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

    `slow` is True if building takes milliseconds and should not run on an event loop. `work` is
    for traces; None if no engine was needed.
    """

    build: Callable[[], bytes]
    slow: bool = False
    work: Work | None = None


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
