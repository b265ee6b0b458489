"""Conversion of a graph to float16 weights and arithmetic, with float32 inputs and outputs.

It uses onnxconverter-common (1.16.0, August 2025; 90 kB, no dependency beyond those of onnx).
onnxruntime.transformers has a newer copy of the same code, but its graphs are not in topological
order, which the checker of onnx refuses.
"""

import copy
import warnings

import numpy as np
import onnx
import torch
from onnxconverter_common.float16 import convert_float_to_float16

from latentserve_training.errors import ExportError
from latentserve_training.graphs.spec import Graph

PRECISIONS = ("float32", "float16")
# float16 has 11 significant bits: one rounding has a relative error of up to 5e-4, and a network
# rounds in every layer. The shipped models differ by at most 2e-3.
FLOAT16_PARITY_TOLERANCE = 1e-2
# Tolerance of golden outputs as a multiple of their difference at export: a GPU rounds differently.
GOLDEN_MARGIN = 4.0
SMALLEST_GOLDEN_TOLERANCE = 1e-3
LARGEST_GOLDEN_TOLERANCE = 0.1  # limit of the manifest schema
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Convert a float32 graph; the given model is not changed.

    Operators that ONNX Runtime implements only in float32 stay in float32, between casts.

    Raises:
        ExportError: If a weight is above the largest float16, 65504.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0)
            if not largest <= _LARGEST:
                raise ExportError(
                    f"{file}: {tensor.name} holds {largest:.3g}, above the largest float16, "
                    f"{_LARGEST:g}; export it in float32"
                )
    with warnings.catch_warnings():
        # It warns of every weight below 6e-8 that it is rounded, as float16 requires.
        warnings.filterwarnings("ignore", message="the float32 number .* will be truncated")
        converted: onnx.ModelProto = convert_float_to_float16(
            model, min_positive_val=_SMALLEST, max_finite_val=_LARGEST, keep_io_types=True
        )
    return converted


def difference_in_float16(graph: Graph, inputs: np.ndarray, outputs: list[np.ndarray]) -> float:
    """The largest difference of torch's float16 outputs, rounded after every layer as on a GPU.

    The CPU provider of ONNX Runtime computes a float16 graph in float32, with rounded weights.

    Args:
        graph: In evaluation mode.
        inputs: Float32.
        outputs: Expected outputs, float32, one for each output of the graph.
    """
    module = copy.deepcopy(graph.module).half()
    with torch.inference_mode():
        found = module(torch.from_numpy(inputs).half())
    found = found if isinstance(found, tuple) else (found,)
    pairs = zip(found, outputs, strict=True)
    return max(float(np.abs(ours.float().numpy() - theirs).max()) for ours, theirs in pairs)


def golden_tolerance(measured: float) -> float:
    """The tolerance of golden outputs that differ by ``measured`` from float32 at export.

    Raises:
        ExportError: If it exceeds the limit of the manifest.
    """
    tolerance = GOLDEN_MARGIN * measured
    if not tolerance <= LARGEST_GOLDEN_TOLERANCE:  # not >, which is False for NaN
        raise ExportError(
            f"in float16 golden outputs differ by {measured:.3g}; at most "
            f"{LARGEST_GOLDEN_TOLERANCE / GOLDEN_MARGIN:g} is allowed. Export it in float32"
        )
    return float(f"{max(tolerance, SMALLEST_GOLDEN_TOLERANCE):.2g}")
