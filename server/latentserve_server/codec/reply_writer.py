"""Serialiser of replies, which copies array data only once.

A generated message class would copy the data into the message, and again when it is serialised.
In protobuf, the order of fields has no meaning, and two concatenated messages are equal to one
message with the fields of both. So only the tensor fields are written here, and the generated
classes write the other ones. Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from latentserve.v1 import tensor_pb2 as pb
from latentserve_server.codec.zero_copy import varint

Piece = bytes | NDArray[Any]
"""A part of a reply: bytes, or an array whose memory is contiguous and little-endian."""

_TENSOR_DATA_TAG = b"\x1a"  # field 3, length-delimited
_IMAGES_TENSOR_TAG = b"\x0a"  # field 1, length-delimited


def message_field(number: int, message: bytes) -> bytes:
    """Return a serialised message as field `number` (below 16) of another message."""
    return bytes((number << 3 | 2,)) + varint(len(message)) + message


def tensor_field(number: int, data_type: pb.DataType, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return an array as a Tensor in field `number` of a reply, in two pieces."""
    return _tensor_prefix(number, data_type, array.shape, array.nbytes, False), array


def images_field(number: int, data_type: pb.DataType, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return an array as Images with a tensor in field `number` of a reply, in two pieces."""
    return _tensor_prefix(number, data_type, array.shape, array.nbytes, True), array


def floats_field(number: int, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return float32 values as a packed repeated float in field `number`, in two pieces."""
    return bytes((number << 3 | 2,)) + varint(array.nbytes), array


@lru_cache(maxsize=1024)
def _tensor_prefix(
    number: int, data_type: pb.DataType, shape: tuple[int, ...], data_bytes: int, in_images: bool
) -> bytes:
    """Return the bytes before the data; they are equal for all replies of one shape."""
    fields = pb.Tensor(data_type=data_type, shape=shape).SerializeToString()
    prefix = fields + _TENSOR_DATA_TAG + varint(data_bytes)
    if in_images:
        prefix = _IMAGES_TENSOR_TAG + varint(len(prefix) + data_bytes) + prefix
    return bytes((number << 3 | 2,)) + varint(len(prefix) + data_bytes) + prefix
