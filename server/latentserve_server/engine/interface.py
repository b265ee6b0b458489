"""Interface of an engine for the model repository."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from latentserve_server.batching.batcher import Runner


class Engine(Runner, Protocol):
    """The methods of an engine that a loader uses; implemented by `onnx.OnnxEngine`."""

    provider: str

    def warm_up(self, batch_rows: Iterable[int]) -> Sequence[tuple[str, int, float]]:
        """Run every operation for each batch size; raises ManifestError.

        Returns (operation, rows, seconds) of each measured run.
        """

    def check_golden(self) -> float:
        """Repeat the golden runs and return the largest absolute difference.

        Raises ManifestError if it exceeds the tolerance.
        """
