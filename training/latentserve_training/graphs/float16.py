"""A graph whose weights and arithmetic are float16, between inputs and outputs that stay float32.

onnxconverter-common converts (1.16.0, August 2025; 90 kB, and no dependency that onnx does not
bring). onnxruntime.transformers has a younger copy of the same code, but the graphs that it gives
are not in topological order, which onnx's own checker refuses.
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
# float16 keeps 11 bits: one rounding is wrong by up to 5e-4 of its value, and a network rounds in
# every layer. The shipped models differ by 2e-3 at most.
FLOAT16_PARITY_TOLERANCE = 1e-2
# Golden outputs may differ by what they did at export, times this: a GPU rounds in other places.
GOLDEN_MARGIN = 4.0
SMALLEST_GOLDEN_TOLERANCE = 1e-3
LARGEST_GOLDEN_TOLERANCE = 0.1  # that of the manifest's schema
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Convert a float32 graph; the one given stays as it is.

    Operators that ONNX Runtime has in float32 alone stay so, between casts.

    Raises:
        ExportError: If a weight is beyond the largest float16, 65504.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0)
            if not largest <= _LARGEST:
                raise ExportError(
                    f"{file}: {tensor.name} holds {largest:.3g}, float16 ends at {_LARGEST:g}; "
                    "export it in float32"
                )
    with warnings.catch_warnings():
        # It says of every weight below 6e-8 that it is rounded, which is what float16 means.
        warnings.filterwarnings("ignore", message="the float32 number .* will be truncated")
        converted: onnx.ModelProto = convert_float_to_float16(
            model, min_positive_val=_SMALLEST, max_finite_val=_LARGEST, keep_io_types=True
        )
    return converted


def difference_in_float16(graph: Graph, inputs: np.ndarray, outputs: list[np.ndarray]) -> float:
    """How far torch's float16 is from these outputs: it rounds after every layer, as a GPU does.

    ONNX Runtime's CPU provider computes a float16 graph in float32, with weights that are rounded.

    Args:
        graph: In evaluation mode.
        inputs: Float32.
        outputs: Float32, one for each of the graph's.
    """
    module = copy.deepcopy(graph.module).half()
    with torch.inference_mode():
        found = module(torch.from_numpy(inputs).half())
    found = found if isinstance(found, tuple) else (found,)
    pairs = zip(found, outputs, strict=True)
    return max(float(np.abs(ours.float().numpy() - theirs).max()) for ours, theirs in pairs)


def golden_tolerance(measured: float) -> float:
    """The tolerance of golden outputs that differ by `measured` from float32 at export.

    Raises:
        ExportError: If it would be more than a manifest may allow.
    """
    wanted = GOLDEN_MARGIN * measured
    if not wanted <= LARGEST_GOLDEN_TOLERANCE:  # not >, which would let NaN through
        raise ExportError(
            f"in float16 golden outputs differ by {measured:.3g}; "
            f"{LARGEST_GOLDEN_TOLERANCE / GOLDEN_MARGIN:g} is allowed. Export it in float32"
        )
    return float(f"{max(wanted, SMALLEST_GOLDEN_TOLERANCE):.2g}")
