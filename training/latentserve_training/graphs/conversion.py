"""Conversion of a torch module to ONNX, inspection of the graph, and parity check.

``tests/unit/training/graphs/test_conversion.py`` tests that each check fails on an invalid graph.
"""

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.export import Dim

from latentserve_training.errors import ExportError, ParityError
from latentserve_training.graphs.spec import Graph
from latentserve_training.pixels import ImageShape

OPSET_VERSION = 20  # default of torch 2.13; onnxruntime 1.31 reads up to 26
BATCH_DIMENSION = "batch"
PARITY_BATCHES = (1, 3, 4, 7, 64)
# Relative to the largest value, or to 1 if that is larger: images lie in [0, 1], but the latents of
# a model without a prior have any scale. Another order of float32 operations gives about 1e-7.
PARITY_TOLERANCE = 1e-5
PARITY_SEED = 5
# Noise must be an input of the graph: the server could not seed or repeat noise inside it.
RANDOM_OPERATORS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
# The exporter removes or folds these in evaluation mode: their presence means training mode.
TRAINING_OPERATORS = frozenset({"Dropout", "BatchNormalization"})


def convert(graph: Graph, image_shape: ImageShape, latent_dim: int) -> onnx.ModelProto:
    """Export to ONNX in memory and check the result.

    Raises:
        ExportError: If the module is in training mode, or :func:`inspect` refuses the graph.
    """
    if graph.module.training:
        raise ExportError(f"{graph.file}: the module is in training mode; call eval() first")
    # A batch of 2, because torch.export may specialise the graph on 0 and 1.
    example = example_input(graph, image_shape, latent_dim, 2, torch.Generator().manual_seed(0))
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13's exporter warns about its own use of deprecated calls.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.onnx.export(
                graph.module,
                (example,),
                dynamo=True,
                opset_version=OPSET_VERSION,
                input_names=[graph.input_name],
                output_names=list(graph.output_names),
                dynamic_shapes=({0: Dim(BATCH_DIMENSION, min=1, max=1 << 20)},),
                external_data=False,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    if program is None:
        raise ExportError(f"{graph.file}: torch.onnx.export returned no program")
    model = program.model_proto
    strip_local_information(model)
    inspect(model, graph.file)
    return model


def strip_local_information(model: onnx.ModelProto) -> None:
    """Remove stack traces, source paths and other metadata; the computation does not change.

    torch 2.13 writes ``pkg.torch.onnx.stack_trace`` with absolute paths of the exporting machine
    into every node.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    for part in _annotated_parts(model.graph):
        del part.metadata_props[:]
        part.doc_string = ""


def inspect(model: onnx.ModelProto, file: str) -> None:
    """Check that a graph may be published.

    Raises:
        ExportError: If it generates random numbers, is in training mode, has a fixed batch size,
            keeps weights in another file or holds metadata of the exporting machine.
    """
    operators = {node.op_type for node in _nodes(model.graph)}
    if found := operators & RANDOM_OPERATORS:
        raise ExportError(
            f"{file} generates random numbers ({', '.join(sorted(found))}); make the noise an input"
        )
    if found := operators & TRAINING_OPERATORS:
        raise ExportError(
            f"{file} holds {', '.join(sorted(found))}: exported in training mode? call eval()"
        )
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param != BATCH_DIMENSION:
            shown = first.dim_param or first.dim_value
            raise ExportError(
                f"{file}: the first dimension of {value.name} is {shown}, not a dynamic "
                f"{BATCH_DIMENSION!r}; avoid sizes taken from the batch, such as x.shape[0]"
            )
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ExportError(f"{file} keeps weights in another file")
    notes = [model.doc_string, *(prop.value for prop in model.metadata_props)]
    for part in _annotated_parts(model.graph):
        notes += [part.doc_string, *(prop.value for prop in part.metadata_props)]
    if any(notes):
        raise ExportError(f"{file} holds metadata of the exporting machine: {max(notes)[:80]!r}")
    onnx.checker.check_model(model, full_check=True)


def check_parity(
    model: onnx.ModelProto,
    graph: Graph,
    image_shape: ImageShape,
    latent_dim: int,
    tolerance: float = PARITY_TOLERANCE,
) -> float:
    """Compare torch and ONNX Runtime on random inputs at several batch sizes.

    Returns:
        The largest difference, relative to the largest value where that is above 1.

    Raises:
        ParityError: If it is above the tolerance, or shapes or names differ.
    """
    session = start_session(model)
    names = [value.name for value in session.get_outputs()]
    if names != list(graph.output_names):
        raise ParityError(f"{graph.file} has the outputs {names}, not {list(graph.output_names)}")
    generator = torch.Generator().manual_seed(PARITY_SEED)
    largest = 0.0
    for batch in PARITY_BATCHES:
        inputs = example_input(graph, image_shape, latent_dim, batch, generator)
        expected = run_torch(graph, inputs)
        actual = session.run(None, {graph.input_name: inputs.numpy()})
        for name, ours, theirs in zip(names, expected, actual, strict=True):
            if ours.shape != theirs.shape:
                raise ParityError(
                    f"{graph.file}, {name} at batch {batch}: torch gives {ours.shape}, "
                    f"ONNX Runtime {theirs.shape}"
                )
            difference = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
            if not difference <= tolerance:  # not >, which is False for NaN
                raise ParityError(
                    f"{graph.file}, {name} at batch {batch}: torch and ONNX Runtime differ by "
                    f"{difference:.3g}; at most {tolerance:g} is allowed"
                )
            largest = max(largest, difference)
    return largest


def start_session(model: onnx.ModelProto | bytes) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one CPU thread, from a model or the content of its file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_torch(graph: Graph, inputs: Tensor) -> tuple[np.ndarray, ...]:
    """The module's outputs, in the order of ``graph.output_names``."""
    with torch.inference_mode():
        outputs = graph.module(inputs)
    return tuple(each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,)))


def example_input(
    graph: Graph, image_shape: ImageShape, latent_dim: int, batch: int, generator: torch.Generator
) -> Tensor:
    """Uniform images in [0, 1] or standard normal latents, whichever the graph takes."""
    if graph.input_name == "images":
        return torch.rand(batch, *image_shape, generator=generator)
    return torch.randn(batch, latent_dim, generator=generator)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, including those of branches and loop bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _annotated_parts(
    graph: onnx.GraphProto,
) -> Iterator[onnx.GraphProto | onnx.NodeProto | onnx.TensorProto | onnx.ValueInfoProto]:
    yield graph
    yield from _nodes(graph)
    yield from graph.initializer
    for values in (graph.input, graph.output, graph.value_info):
        yield from values
