"""Interface of an engine, as the model repository uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from latentserve_server.batching.batcher import Runner


class Engine(Runner, Protocol):
    """What a loader needs of an engine; `engine.OnnxEngine` is the real one."""

    provider: str

    def warm_up(self, batch_rows: Iterable[int]) -> Sequence[tuple[str, int, float]]:
        """Run every operation for each batch size; raises ManifestError.

        Returns (operation, rows, seconds) of each run that was warm.
        """

    def check_golden(self) -> float:
        """Repeat the golden runs; raises ManifestError where they differ too much."""
