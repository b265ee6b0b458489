"""The form of one call, without a transport: bytes in, and a Reply for the callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from latentserve_server.batching.request import Completion
from latentserve_server.repository.model_version import LoadedModel

Work = tuple[LoadedModel, str, int, Completion]
"""What a reply was made by: the model, the operation, the rows, and how they ended."""


@dataclass(slots=True)
class Reply:
    """A finished call. `build` returns the response's bytes or raises the CallError.

    `slow` says that building takes milliseconds, so an event loop should not do it. `work` is
    for traces, None for what needed no engine.
    """

    build: Callable[[], bytes]
    slow: bool = False
    work: Work | None = None


Done = Callable[[Reply], None]


class Call(Protocol):
    """A call in flight."""

    def cancel(self) -> None:
        """Forget the call: its callback will not be called."""


class ChunkStream(Protocol):
    """A call with many replies. The transport asks for one after the other."""

    @property
    def exhausted(self) -> bool:
        """Whether every reply was asked for."""

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Begin the next reply."""


UnaryMethod = Callable[[bytes, float | None, Done], Call]
