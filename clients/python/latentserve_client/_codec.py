"""Codec between NumPy arrays and tensor messages.

The only module that uses both NumPy and the tensor message.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve.v1 import tensor_pb2
from latentserve_client._errors import BadReply, invalid

# Tensor data is little-endian on every machine.
_DTYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}


def to_tensor(array: NDArray[Any]) -> tensor_pb2.Tensor:
    """Return the message of a float32, float16 or uint8 array with any memory layout."""
    wire_dtype = array.dtype.newbyteorder("<")
    return tensor_pb2.Tensor(
        data_type=_DATA_TYPES[wire_dtype],  # type: ignore[arg-type]  # enums are ints
        shape=array.shape,
        # One copy, in row-major order.
        data=array.astype(wire_dtype, copy=False).tobytes(),
    )


def from_tensor(tensor: tensor_pb2.Tensor, rank: int) -> NDArray[Any]:
    """Return a read-only array view of a tensor of a reply, with `rank` dimensions.

    Raises BadReply for a wrong data type, rank or length.
    """
    shape = tuple(tensor.shape)
    data = tensor.data  # each access copies: access once
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None:
        raise BadReply(f"a tensor of unknown data type {tensor.data_type}")
    if len(shape) != rank or min(shape, default=0) < 0:
        raise BadReply(f"a tensor of shape {list(shape)}; expected {rank} dimensions")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise BadReply(f"{len(data)} bytes for a {dtype.name} tensor of shape {list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)


def to_latents(latents: Any) -> tensor_pb2.Tensor:
    """Return the message of latents: float arrays [n, dim], or one row [dim].

    float64 is sent as float32. Raises InvalidArgument for other values.
    """
    array = np.asarray(latents)
    if array.dtype.newbyteorder("=") == np.float64:
        array = array.astype(np.float32)
    if array.dtype.newbyteorder("=") not in (np.float32, np.float16):
        raise invalid("latents", f"{array.dtype} values; expected float32, float16 or float64")
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or array.size == 0:
        raise invalid("latents", f"shape {list(array.shape)}; expected [n, dim] with n at least 1")
    return to_tensor(array)


def from_images(images: tensor_pb2.Images) -> NDArray[Any] | tuple[bytes, ...]:
    """Return a reply's images: an array [n, channels, height, width], or PNG files."""
    form = images.WhichOneof("form")
    if form == "tensor":
        return from_tensor(images.tensor, rank=4)
    if form == "encoded":
        return tuple(images.encoded.files)
    raise BadReply("the reply contains no images")
