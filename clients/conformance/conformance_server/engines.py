"""Engines that never answer, never start or always fail."""

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
    """Runs nothing until it is released, once it is warm."""

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
        """Wait here, where a start is to take for ever."""
        if self._hold_start:
            self._released.wait()
        return super().check_golden()

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Warm up; from now on runs are held, so nothing is known of how long they take."""
        super().warm_up(batch_rows)
        self._is_warm = True
        return []

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run one batch, after the release."""
        if self._is_warm:
            self._holding.set()
            self._released.wait()
        return super().run(operation, inputs)


class FailingEngine(OnnxEngine):
    """Fails every run, once it is warm."""

    _is_warm = False

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Warm up; from now on runs fail."""
        ran = super().warm_up(batch_rows)
        self._is_warm = True
        return ran

    def run(
        self, operation: str, inputs: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Fail, with a text that no caller may see."""
        if self._is_warm:
            raise RuntimeError(SECRET)
        return super().run(operation, inputs)


def held(
    released: threading.Event, holding: threading.Event, *, hold_start: bool = False
) -> EngineFactory:
    """Return a factory of engines that are held until `released` is set.

    They set `holding` when they hold a batch.
    """
    return lambda manifest, device, threads: HeldEngine(
        manifest, device, threads, released, holding, hold_start=hold_start
    )


def failing(manifest: Manifest, device: Device, threads: int) -> FailingEngine:
    """Return an engine that fails."""
    return FailingEngine(manifest, device, threads=threads)
