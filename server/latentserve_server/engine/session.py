"""ONNX Runtime session of one graph: opens it and checks it against the manifest."""

from __future__ import annotations

from typing import Any

import onnxruntime

from latentserve_server.engine.device import Device, check_session
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import Manifest, OperationSpec

# The exceptions of ONNX Runtime (Fail, InvalidGraph, NoSuchFile, InvalidArgument, ...) have no
# common base class but Exception, so this collects the classes from its module.
RUNTIME_FAILURES: tuple[type[Exception], ...] = tuple(
    value
    for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    if isinstance(value, type) and issubclass(value, Exception)
)


def open_session(manifest: Manifest, spec: OperationSpec, device: Device, threads: int) -> Any:
    """Return an InferenceSession of a graph, on `device`.

    ONNX Runtime gets the content of the files, whose SHA-256 was checked, and opens no file. It
    copies the tensors, so that later changes of the files have no effect. Raises ManifestError if
    the graph cannot be loaded, DeviceUnavailable if it would not run on `device`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads would take CPU time from gRPC.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Content in the ORT format, which `graph_check` cannot read, is refused.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    graph = manifest.read_file(spec.file)
    names = manifest.external_files.get(spec.file, ())
    weights = [manifest.read_file(name) for name in names]
    if names:
        sizes = [len(content) for content in weights]
        options.add_external_initializers_from_files_in_memory(names, weights, sizes)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=device.providers)
    except RUNTIME_FAILURES as error:
        advice = ". CUDA graphs need every node on the GPU: --cuda-graphs no" * device.cuda_graphs
        raise ManifestError(f"{spec.file} cannot be loaded: {first_line(error)}{advice}") from error
    # Otherwise ONNX Runtime silently replaces the session with a CPU session when a GPU fails.
    session.disable_fallback()
    # Only the fallback would need the content again; InferenceSession keeps it otherwise.
    session._model_bytes = None
    check_session(session, device)
    return session


def check_tensors(session: Any, operation: str, spec: OperationSpec, manifest: Manifest) -> None:
    """Check the tensors of a graph (names, dtypes, shapes) against the manifest.

    Raises ManifestError.
    """
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
            f"but the manifest also lists {sorted(missing)}"
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


def first_line(error: BaseException) -> str:
    """Return the first line of an ONNX Runtime error."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
