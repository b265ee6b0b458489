"""Serialised replies, put together from a short header and the numbers, which are copied once.

A message of the generated classes would copy them into itself, and again when it is
serialised. The order of fields on the wire has no meaning, and two serialised messages one
after the other are the one with the fields of both, so the other fields still come from the
generated classes. Wire format: https://protobuf.dev/programming-guides/encoding/
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
    """Return a serialised message as field `number`, below 16, of another."""
    return bytes((number << 3 | 2,)) + varint(len(message)) + message


def tensor_field(number: int, data_type: pb.DataType, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return an array as a Tensor in field `number` of a reply, in two pieces."""
    return _tensor_head(number, data_type, array.shape, array.nbytes, False), array


def images_field(number: int, data_type: pb.DataType, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return an array as Images with a tensor in field `number` of a reply, in two pieces."""
    return _tensor_head(number, data_type, array.shape, array.nbytes, True), array


def floats_field(number: int, array: NDArray[Any]) -> tuple[Piece, Piece]:
    """Return float32 values as a packed repeated float in field `number`, in two pieces."""
    return bytes((number << 3 | 2,)) + varint(array.nbytes), array


@lru_cache(maxsize=1024)
def _tensor_head(
    number: int, data_type: pb.DataType, shape: tuple[int, ...], data_bytes: int, in_images: bool
) -> bytes:
    """Return what stands before the data: it is the same for every reply of a shape."""
    fields = pb.Tensor(data_type=data_type, shape=shape).SerializeToString()
    head = fields + _TENSOR_DATA_TAG + varint(data_bytes)
    if in_images:
        head = _IMAGES_TENSOR_TAG + varint(len(head) + data_bytes) + head
    return bytes((number << 3 | 2,)) + varint(len(head) + data_bytes) + head
