"""ONNX Runtime engine of one model version: load, check, warm up, run."""

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
    first_line,
    open_session,
)
from latentserve_server.errors import EngineFailure, ManifestError, OutOfMemory
from latentserve_server.manifest.npz import opened_arrays
from latentserve_server.manifest.reader import Manifest, OperationSpec

Floats = NDArray[np.float32]

# RuntimeError: C++ exceptions without an ONNX Runtime status, for example in a copy to a device.
FAILURES: tuple[type[Exception], ...] = (*RUNTIME_FAILURES, RuntimeError, MemoryError)
_CANNOT_RUN: tuple[type[Exception], ...] = (*FAILURES, EngineFailure)


class OnnxEngine:
    """Runs the operations of one model.

    Only one thread at a time may call `run`. Raises ManifestError if a graph cannot be loaded or
    does not match the manifest, DeviceUnavailable if it would not run on `device`.

    Args:
        manifest: the checked manifest.
        device: the device to run on.
        threads: intra-op threads of each graph.
        opener: creates the session of a graph.
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
        # The arguments of a run, looked up once. A plain `run` is fastest on the CPU: bound or
        # preallocated outputs save nothing there, and run_with_ort_values takes 26 us longer.
        self._runs: dict[str, tuple[Any, list[str], tuple[str, ...]]] = {}
        for operation, spec in manifest.operations.items():
            if spec.file not in self._sessions:
                self._sessions[spec.file] = opener(manifest, spec, device, threads)
            session = self._sessions[spec.file]
            check_tensors(session, operation, spec, manifest)
            self._runs[operation] = (session.run, list(spec.outputs), spec.inputs)

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch. Inputs and outputs are float32 [rows, ...], in manifest order.

        The outputs are new arrays; no later run changes them. Raises OutOfMemory if a smaller batch
        may succeed, otherwise the error of ONNX Runtime.
        """
        run, output_names, input_names = self._runs[operation]
        try:
            outputs: list[Floats] = run(output_names, dict(zip(input_names, inputs, strict=True)))
        except FAILURES as error:
            raise_if_out_of_memory(error, operation, len(inputs[0]))
            raise
        return outputs

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        """Run every operation at every batch size, because first runs are slow.

        Returns (operation, rows, seconds) of the second run of each. Raises ManifestError if a run
        fails.
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
                f"{operation} cannot be run with {rows} rows: {first_line(error)}"
            ) from error

    def check_golden(self) -> float:
        """Repeat the golden runs on this hardware; return the largest absolute difference.

        Raises ManifestError if it exceeds the tolerance of the manifest and that of the device.
        """
        golden = self._manifest.golden
        largest = 0.0
        try:
            with opened_arrays(self._manifest, golden.file) as arrays:
                for operation, spec in self._manifest.operations.items():
                    inputs = [arrays[golden.inputs[operation][name]] for name in spec.inputs]
                    outputs = self.run(operation, inputs)
                    for name, output in zip(spec.outputs, outputs, strict=True):
                        expected = arrays[golden.outputs[operation][name]]
                        difference = _largest_difference(operation, name, output, expected)
                        if not difference <= self._tolerance:
                            raise ManifestError(
                                f"{operation} gives other results than at export: {name} differs "
                                f"by {difference:.2g}, but the tolerance is {self._tolerance:g}"
                            )
                        largest = max(largest, difference)
        except _CANNOT_RUN as error:
            raise ManifestError(f"the golden inputs cannot be run: {first_line(error)}") from error
        return largest


def raise_if_out_of_memory(error: Exception, operation: str, rows: int) -> None:
    """Raise OutOfMemory from `error` if it reports a lack of memory; its text is for the log."""
    if is_out_of_memory(error):
        raise OutOfMemory(
            f"no memory to {operation} {rows} rows at once: {first_line(error)}"
        ) from error


def _largest_difference(operation: str, name: str, output: Floats, expected: NDArray[Any]) -> float:
    if output.shape != expected.shape:
        raise ManifestError(
            f"{operation} gives {name} with shape {output.shape}, but the golden output has shape "
            f"{expected.shape}"
        )
    return float(np.max(np.abs(output - expected)))
