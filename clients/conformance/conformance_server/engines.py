"""Engines that block, never start or always fail."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from latentserve_server.engine.device import Device
from latentserve_server.engine.factory import EngineFactory
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import Manifest

SECRET = "secret detail of a failing engine"


class HeldEngine(OnnxEngine):
    """Engine that blocks every run after the warm-up until it is released."""

    def __init__(
        self,
        manifest: Manifest,
        device: Device,
        threads: int,
        released: threading.Event,
        holding: threading.Event,
        *,
        hold_start: bool,
    ) -> None:
        super().__init__(manifest, device, threads=threads)
        self._released = released
        self._holding = holding
        self._hold_start = hold_start
        self._is_warm = False

    def check_golden(self) -> float:
        """Block here if the start is to be held."""
        if self._hold_start:
            self._released.wait()
        return super().check_golden()

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Warm up; return no durations, because later runs are held."""
        super().warm_up(batch_rows)
        self._is_warm = True
        return []

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run one batch after the release."""
        if self._is_warm:
            self._holding.set()
            self._released.wait()
        return super().run(operation, inputs)


class FailingEngine(OnnxEngine):
    """Engine that fails every run after the warm-up."""

    _is_warm = False

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Warm up; later runs fail."""
        ran = super().warm_up(batch_rows)
        self._is_warm = True
        return ran

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Fail with a text that no client may receive."""
        if self._is_warm:
            raise RuntimeError(SECRET)
        return super().run(operation, inputs)


def held(
    released: threading.Event, holding: threading.Event, *, hold_start: bool = False
) -> EngineFactory:
    """Return a factory of engines that block until `released` is set.

    They set `holding` when they block a batch.
    """
    return lambda manifest, device, threads: HeldEngine(
        manifest, device, threads, released, holding, hold_start=hold_start
    )


def failing(manifest: Manifest, device: Device, threads: int) -> FailingEngine:
    """Return an engine that fails every run."""
    return FailingEngine(manifest, device, threads=threads)
