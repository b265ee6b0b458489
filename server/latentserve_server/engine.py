"""One version of one model in ONNX Runtime: load, check, warm up, run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from latentserve_server.arrays import opened_arrays
from latentserve_server.device import Device, check_session
from latentserve_server.errors import ManifestError
from latentserve_server.manifest import Manifest, OperationSpec

Floats = NDArray[np.float32]


class OnnxEngine:
    """Runs the operations of one model.

    `run` is called from one thread at a time. Raises ManifestError where a graph cannot be
    loaded or does not match the manifest, DeviceUnavailable where it would not run on
    `device`.

    Args:
        manifest: the checked manifest.
        device: where to run.
        threads: intra-op threads of each graph.
    """

    def __init__(self, manifest: Manifest, device: Device, *, threads: int) -> None:
        self._manifest = manifest
        self.provider = device.provider
        self._sessions: dict[str, Any] = {}
        for operation, spec in manifest.operations.items():
            if spec.file not in self._sessions:
                self._sessions[spec.file] = _open_session(manifest, spec, device, threads)
            _check_tensors(self._sessions[spec.file], operation, spec, manifest)

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch. Inputs and outputs are float32 [rows, ...], in manifest order."""
        spec = self._manifest.operations[operation]
        feeds = dict(zip(spec.inputs, inputs, strict=True))
        outputs: list[Floats] = self._sessions[spec.file].run(list(spec.outputs), feeds)
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
        except _RuntimeFailure as error:
            raise ManifestError(
                f"{operation} cannot be run with {rows} rows: {_short(error)}"
            ) from error

    def check_golden(self) -> float:
        """Repeat the golden runs on this hardware; return the largest absolute difference.

        Raises ManifestError where it exceeds the manifest's tolerance.
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
                        if not difference <= golden.tolerance:
                            raise ManifestError(
                                f"{operation} gives other results than at export: {name} differs "
                                f"by {difference:.2g}, the tolerance is {golden.tolerance:g}"
                            )
                        largest = max(largest, difference)
        except _RuntimeFailure as error:
            raise ManifestError(f"the golden inputs cannot be run: {_short(error)}") from error
        return largest


# What ONNX Runtime raises (Fail, InvalidGraph, NoSuchFile, InvalidArgument, ...) has no common
# base of its own beside Exception, so the classes are listed from its own table.
_RuntimeFailure: tuple[type[Exception], ...] = tuple(
    value
    for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(value, type) and issubclass(value, Exception)
)


def _open_session(manifest: Manifest, spec: OperationSpec, device: Device, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads burn the cores that gRPC needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = str(manifest.folder / spec.file)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=device.providers)
    except _RuntimeFailure as error:
        raise ManifestError(f"{spec.file} cannot be loaded: {_short(error)}") from error
    # Otherwise a failing GPU turns into a silent CPU session in mid-flight.
    session.disable_fallback()
    check_session(session, device)
    return session


def _check_tensors(session: Any, operation: str, spec: OperationSpec, manifest: Manifest) -> None:
    """Check names, types and shapes of a graph against the manifest."""
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor for tensor in session.get_outputs()}
    if set(spec.inputs) != set(inputs):
        raise ManifestError(
            f"{operation}: the graph {spec.file} has the inputs {sorted(inputs)}, "
            f"the manifest says {list(spec.inputs)}"
        )
    if missing := set(spec.outputs) - set(outputs):
        raise ManifestError(
            f"{operation}: the graph {spec.file} has the outputs {sorted(outputs)}, "
            f"not {sorted(missing)}"
        )
    rows = [(inputs[name], manifest.input_shape(operation)) for name in spec.inputs]
    rows += [(outputs[name], manifest.output_shape(operation)) for name in spec.outputs]
    for tensor, shape in rows:
        found = list(tensor.shape)
        if (
            tensor.type != "tensor(float)"
            or found[1:] != list(shape)
            or not isinstance(found[0], str)
        ):
            raise ManifestError(
                f"{operation}: {tensor.name} in {spec.file} is {tensor.type} {tensor.shape}, "
                f"expected tensor(float) ['batch', {', '.join(map(str, shape))}]"
            )


def _largest_difference(operation: str, name: str, output: Floats, expected: NDArray[Any]) -> float:
    if output.shape != expected.shape:
        raise ManifestError(
            f"{operation} gives {name} with shape {output.shape}, the golden one is "
            f"{expected.shape}"
        )
    return float(np.max(np.abs(output - expected)))


def _short(error: BaseException) -> str:
    """Return the first line of an ONNX Runtime error."""
    return str(error).splitlines()[0][:300]
