"""Tensors of the Open Inference Protocol: inputs from metadata, outputs as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_client.load.measure.validation import ReplyParts
from latentserve_client.load.open_inference import messages_pb2 as pb
from latentserve_client.load.plan.mix import BadMix

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
# Field of InferTensorContents by dtype; FP16 is always raw.
_CONTENTS = {"?": "bool_contents", "f4": "fp32_contents", "f8": "fp64_contents"}


def input_array(
    name: str, datatype: str, shape: Sequence[int], rows: int, rng: np.random.Generator
) -> NDArray[Any]:
    """Return a random input: floats in [0, 1), integers 0 or 1.

    The first variable dimension becomes the number of rows, because the batch dimension comes
    first; other variable dimensions become 1. Raises BadMix for an unsupported data type, and for
    rows that do not match a fixed shape.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        known = ", ".join(DTYPES)
        raise BadMix(f"the input {name!r} has data type {datatype}; supported: {known}")
    sizes = list(shape)
    if -1 in sizes:
        sizes[sizes.index(-1)] = rows
    elif rows != 1:
        raise BadMix(f"the input {name!r} has the fixed shape {list(shape)}; omit rows")
    sizes = [1 if size < 0 else size for size in sizes]
    values = rng.random(sizes, np.float32)
    return values.astype(dtype) if dtype.kind == "f" else (values > 0.5).astype(dtype)


def request(
    model: str, version: str, inputs: Sequence[Any], rows: int, seed: int
) -> pb.ModelInferRequest:
    """Return a request with random inputs as described by ModelMetadata."""
    rng = np.random.default_rng(seed)
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    for spec in inputs:
        array = input_array(spec.name, spec.datatype, spec.shape, rows, rng)
        message.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def read_infer(reply: bytes) -> ReplyParts:
    """Return the outputs of a ModelInferResponse by name, with model and version as the digest."""
    message = pb.ModelInferResponse.FromString(reply)
    parts: dict[str, Any] = {"digest": f"{message.model_name}:{message.model_version}"}
    for number, output in enumerate(message.outputs):
        raw = message.raw_output_contents
        parts[f"output {output.name}"] = (
            _from_raw(output, raw[number]) if raw else _from_contents(output)
        )
    return parts


def _from_raw(output: Any, data: bytes) -> Any:
    dtype = DTYPES.get(output.datatype)
    # BYTES are compared in their serialized form.
    return data if dtype is None else np.frombuffer(data, dtype).reshape(tuple(output.shape))


def _from_contents(output: Any) -> Any:
    dtype = DTYPES.get(output.datatype)
    if dtype is None:
        return tuple(output.contents.bytes_contents)
    name = _CONTENTS.get(dtype.str.lstrip("<|=b"), "")
    if dtype == np.dtype("?"):
        name = "bool_contents"
    elif not name:
        family = "uint" if dtype.kind == "u" else "int"
        name = f"{family}64_contents" if dtype.itemsize == 8 else f"{family}_contents"
    values = getattr(output.contents, name)
    return np.array(values, dtype).reshape(tuple(output.shape))
