"""One version of one model in ONNX Runtime: load, check, warm up, run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_server.engine.device import Device
from latentserve_server.engine.out_of_memory import is_out_of_memory
from latentserve_server.engine.session import (
    RUNTIME_FAILURES,
    check_tensors,
    open_session,
    short,
)
from latentserve_server.errors import EngineFailure, ManifestError, OutOfMemory
from latentserve_server.manifest.npz import opened_arrays
from latentserve_server.manifest.reader import Manifest, OperationSpec

Floats = NDArray[np.float32]

# RuntimeError: what its C++ code throws past the status codes, such as in a copy to a device.
FAILURES: tuple[type[Exception], ...] = (*RUNTIME_FAILURES, RuntimeError, MemoryError)
_CANNOT_RUN: tuple[type[Exception], ...] = (*FAILURES, EngineFailure)


class OnnxEngine:
    """Runs the operations of one model.

    `run` is called from one thread at a time. Raises ManifestError where a graph cannot be
    loaded or does not match the manifest, DeviceUnavailable where it would not run on
    `device`.

    Args:
        manifest: the checked manifest.
        device: where to run.
        threads: intra-op threads of each graph.
        opener: makes the session of a graph.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: Device,
        *,
        threads: int,
        opener: Callable[[Manifest, OperationSpec, Device, int], Any] = open_session,
    ) -> None:
        self._manifest = manifest
        self.provider = device.provider
        self._tolerance = max(manifest.golden.tolerance, device.tolerance)
        self._sessions: dict[str, Any] = {}
        # What a run needs, looked up once. Plain `run` is the cheapest way on the CPU: bound or
        # preallocated outputs save nothing there, and run_with_ort_values costs 26 us more.
        self._runs: dict[str, tuple[Any, list[str], tuple[str, ...]]] = {}
        for operation, spec in manifest.operations.items():
            if spec.file not in self._sessions:
                self._sessions[spec.file] = opener(manifest, spec, device, threads)
            session = self._sessions[spec.file]
            check_tensors(session, operation, spec, manifest)
            self._runs[operation] = (session.run, list(spec.outputs), spec.inputs)

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch. Inputs and outputs are float32 [rows, ...], in manifest order.

        The outputs belong to the caller; no later run changes them. Raises OutOfMemory where a
        smaller batch may succeed, and else what ONNX Runtime raises.
        """
        run, output_names, input_names = self._runs[operation]
        try:
            outputs: list[Floats] = run(output_names, dict(zip(input_names, inputs, strict=True)))
        except FAILURES as error:
            refuse_if_out_of_memory(error, operation, len(inputs[0]))
            raise
        return outputs

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Run every operation for every batch size, so that no caller pays for the first time.

        Returns (operation, rows, seconds) of the second run of each. Raises ManifestError where
        one cannot be run.
        """
        return [
            (operation, rows, self._warm_up(operation, rows))
            for rows in batch_rows
            for operation in self._manifest.operations
        ]

    def _warm_up(self, operation: str, rows: int) -> float:
        batch = np.zeros((rows, *self._manifest.input_shape(operation)), dtype=np.float32)
        try:
            self.run(operation, [batch])
            started = time.perf_counter()
            self.run(operation, [batch])
            return time.perf_counter() - started
        except _CANNOT_RUN as error:
            raise ManifestError(
                f"{operation} cannot be run with {rows} rows: {short(error)}"
            ) from error

    def check_golden(self) -> float:
        """Repeat the golden runs on this hardware; return the largest absolute difference.

        Raises ManifestError where it exceeds the manifest's tolerance, or that of the device
        where this is larger.
        """
        golden = self._manifest.golden
        largest = 0.0
        try:
            with opened_arrays(self._manifest.folder, golden.file) as arrays:
                for operation, spec in self._manifest.operations.items():
                    inputs = [arrays[golden.inputs[operation][name]] for name in spec.inputs]
                    outputs = self.run(operation, inputs)
                    for name, output in zip(spec.outputs, outputs, strict=True):
                        expected = arrays[golden.outputs[operation][name]]
                        difference = _largest_difference(operation, name, output, expected)
                        if not difference <= self._tolerance:
                            raise ManifestError(
                                f"{operation} gives other results than at export: {name} differs "
                                f"by {difference:.2g}, the tolerance is {self._tolerance:g}"
                            )
                        largest = max(largest, difference)
        except _CANNOT_RUN as error:
            raise ManifestError(f"the golden inputs cannot be run: {short(error)}") from error
        return largest


def refuse_if_out_of_memory(error: Exception, operation: str, rows: int) -> None:
    """Raise OutOfMemory in place of `error`, where it is one; its text is for the log."""
    if is_out_of_memory(error):
        raise OutOfMemory(
            f"no memory to {operation} {rows} rows at once: {short(error)}"
        ) from error


def _largest_difference(operation: str, name: str, output: Floats, expected: NDArray[Any]) -> float:
    if output.shape != expected.shape:
        raise ManifestError(
            f"{operation} gives {name} with shape {output.shape}, the golden one is "
            f"{expected.shape}"
        )
    return float(np.max(np.abs(output - expected)))
