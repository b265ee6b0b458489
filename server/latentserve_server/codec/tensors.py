"""Conversion and validation of tensors between protobuf messages and numpy arrays.

Shape, data type, length and values of every input are checked here, before the input shares a
batch with other requests. Decoding a tensor makes no copy: the array is a view of the request's
bytes, or of the message's bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentserve.v1 import tensor_pb2 as pb
from latentserve_server.batching.request import Rows
from latentserve_server.codec.images import UnreadableImage, read_image
from latentserve_server.codec.interruption import check_needed
from latentserve_server.codec.reply_writer import Piece, images_field, message_field, tensor_field
from latentserve_server.errors import FieldViolation, InvalidRequest
from latentserve_server.manifest.reader import ImageSpec

Floats = NDArray[np.float32]

UNIT_RANGE = (0.0, 1.0)
NOISY_RANGE = (-10.0, 10.0)
FINITE_RANGE = (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max))

# Resampling and float arithmetic exceed [0, 1] by a few rounding errors.
_RANGE_TOLERANCE = 1e-4
_MAX_VIOLATIONS = 10

_FLOAT32, _UINT8, _UINT32 = np.dtype("<f4"), np.dtype("u1"), np.dtype("<u4")
_ONE_BITS = np.float32(1.0).view(np.uint32)
_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: _FLOAT32,
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: _UINT8,
}
_IMAGE_TYPES = (pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_FLOAT16, pb.DATA_TYPE_UINT8)
_LATENT_TYPES = (pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_FLOAT16)


class Layout(NamedTuple):
    """Data type and shape of a tensor that are checked; the values are not checked yet."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    values: int
    divisor: float

    def view(self, data: bytes, start: int = 0) -> NDArray[Any]:
        """Return the array at byte `start` of `data`, as a view."""
        return np.frombuffer(data, self.dtype, self.values, start).reshape(self.shape)


def image_layout(tensor: pb.Tensor, data_bytes: int, spec: ImageSpec, *, max_rows: int) -> Layout:
    """Return the layout of images [n, channels, height, width]. Raises InvalidRequest."""
    return _layout(tensor, data_bytes, "images.tensor", spec.shape, _IMAGE_TYPES, max_rows)


def latent_layout(tensor: pb.Tensor, data_bytes: int, dim: int, *, max_rows: int) -> Layout:
    """Return the layout of latents [n, dim]. Raises InvalidRequest."""
    return _layout(tensor, data_bytes, "latents", (dim,), _LATENT_TYPES, max_rows)


def image_rows(layout: Layout, data: bytes, start: int, *, allowed: tuple[float, float]) -> Rows:
    """Return the images at byte `start` of `data` as rows in units of [0, 1].

    `allowed` is the range of float values. Raises InvalidRequest.
    """
    array = layout.view(data, start)
    if layout.dtype == _UINT8:
        return Rows(array, divisor=255.0)
    if allowed is not UNIT_RANGE or not _is_unit_range(layout, data, start):
        _check_values(array, "images.tensor.data", allowed)
    return Rows(array)


def latent_rows(
    layout: Layout, data: bytes, start: int, *, allowed: tuple[float, float] = FINITE_RANGE
) -> Rows:
    """Return the latents at byte `start` of `data` as rows. Raises InvalidRequest."""
    array = layout.view(data, start)
    _check_values(array, "latents.data", allowed)
    return Rows(array)


def file_rows(images: pb.Images, spec: ImageSpec, *, max_rows: int) -> Rows:
    """Return image files as rows [n, channels, height, width]. Raises InvalidRequest."""
    if images.WhichOneof("form") != "encoded":
        raise InvalidRequest.field(
            "images", "nothing was sent, expected images.tensor or images.encoded"
        )
    return Rows(_decode_files(images.encoded.files, spec, max_rows=max_rows), divisor=255.0)


def check_format(output_format: int) -> int:
    """Return a valid image format, FLOAT32 for unspecified. Raises InvalidRequest."""
    if output_format == pb.IMAGE_FORMAT_UNSPECIFIED:
        return pb.IMAGE_FORMAT_FLOAT32
    if output_format not in pb.ImageFormat.values():
        raise InvalidRequest.field(
            "output_format",
            f"{output_format} was sent, expected one of {', '.join(pb.ImageFormat.keys()[1:])}",
        )
    return output_format


def encode_tensor(number: int, array: Floats) -> tuple[Piece, ...]:
    """Return a FLOAT32 tensor as field `number` of a reply."""
    data = np.ascontiguousarray(array, dtype=_FLOAT32)
    return tensor_field(number, pb.DATA_TYPE_FLOAT32, data)


def encode_images(number: int, array: Floats, output_format: int) -> tuple[Piece, ...]:
    """Return images [n, channels, height, width] in [0, 1] as field `number` of a reply."""
    if output_format == pb.IMAGE_FORMAT_FLOAT32:
        data = np.ascontiguousarray(array, dtype=_FLOAT32)
        return images_field(number, pb.DATA_TYPE_FLOAT32, data)
    if output_format == pb.IMAGE_FORMAT_FLOAT16:
        return images_field(number, pb.DATA_TYPE_FLOAT16, array.astype("<f2"))
    pixels = _to_uint8(array)
    if output_format == pb.IMAGE_FORMAT_UINT8:
        return images_field(number, pb.DATA_TYPE_UINT8, pixels)
    files = pb.EncodedImages(files=[_encode_png(image) for image in pixels])
    return (message_field(number, pb.Images(encoded=files).SerializeToString()),)


def _layout(
    tensor: pb.Tensor,
    data_bytes: int,
    field: str,
    row_shape: tuple[int, ...],
    types: Sequence[int],
    max_rows: int,
) -> Layout:
    if tensor.data_type not in types:
        names = ", ".join(pb.DataType.Name(data_type) for data_type in types)
        raise InvalidRequest.field(
            f"{field}.data_type", f"{_type_name(tensor.data_type)} was sent, expected {names}"
        )
    shape = tuple(tensor.shape)
    if len(shape) != 1 + len(row_shape) or shape[1:] != row_shape:
        expected = ", ".join(map(str, ("n", *row_shape)))
        raise InvalidRequest.field(
            f"{field}.shape", f"{_format_shape(shape)} was sent, expected [{expected}]"
        )
    _check_rows(f"{field}.shape", shape[0], max_rows)
    dtype = _DTYPES[tensor.data_type]
    values = int(np.prod(shape))
    if data_bytes != values * dtype.itemsize:
        raise InvalidRequest.field(
            f"{field}.data",
            f"{data_bytes} bytes were sent, expected {values * dtype.itemsize} for "
            f"{pb.DataType.Name(tensor.data_type)} of shape {_format_shape(shape)}",
        )
    return Layout(dtype, shape, values, 255.0 if dtype == _UINT8 else 1.0)


def _is_unit_range(layout: Layout, data: bytes, start: int) -> bool:
    """Return True only if all values are float32 in [0, 1]; False if this is not known.

    As unsigned integers, the floats from 0 to 1 are smaller than all others: NaN, infinity,
    larger and negative values. So one pass is enough.
    """
    if layout.dtype != _FLOAT32:
        return False
    bits = np.frombuffer(data, _UINT32, layout.values, start)
    return bool(np.maximum.reduce(bits) <= _ONE_BITS)


def _check_rows(field: str, rows: int, max_rows: int) -> None:
    if not 1 <= rows <= max_rows:
        raise InvalidRequest.field(
            field, f"{rows} rows were sent, expected 1 to {max_rows}; split larger requests"
        )


def _check_values(array: NDArray[Any], field: str, allowed: tuple[float, float]) -> None:
    lowest, highest = allowed
    tolerance = _RANGE_TOLERANCE if allowed == UNIT_RANGE else 0.0
    # Compared as Python floats, because float16 would round the limits to infinity. NaN
    # propagates through min and max and fails both comparisons.
    low, high = float(array.min()), float(array.max())
    if low >= lowest - tolerance and high <= highest + tolerance:
        return
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise InvalidRequest.field(
            field,
            f"{int((~finite).sum())} values are NaN or infinite, the first in row {row}; "
            "expected finite values",
        )
    hint = ""
    if allowed in (UNIT_RANGE, NOISY_RANGE) and high > 1.5:
        hint = "; divide by 255, or send DATA_TYPE_UINT8"
    raise InvalidRequest.field(
        field,
        f"values from {low:.6g} to {high:.6g} were sent, expected {lowest:g} to {highest:g}{hint}",
    )


def _decode_files(files: Sequence[bytes], spec: ImageSpec, *, max_rows: int) -> NDArray[np.uint8]:
    _check_rows("images.encoded.files", len(files), max_rows)
    images = np.empty((len(files), *spec.shape), dtype=np.uint8)
    violations = []
    for index, data in enumerate(files):
        check_needed()
        try:
            images[index] = read_image(data, spec)
        except UnreadableImage as error:
            violations.append(FieldViolation(f"images.encoded.files[{index}]", str(error)))
            if len(violations) == _MAX_VIOLATIONS:
                break
    if violations:
        first = violations[0]
        raise InvalidRequest(f"{first.field}: {first.description}", violations=violations)
    return images


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return one uint8 image [channels, height, width] as PNG."""
    check_needed()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(np.moveaxis(image, 0, 2))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def _to_uint8(array: Floats) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint(np.clip(array, 0.0, 1.0) * np.float32(255.0)).astype(
        np.uint8
    )
    return pixels


def _type_name(data_type: int) -> str:
    names = pb.DataType.keys()
    return names[data_type] if 0 <= data_type < len(names) else str(data_type)


def _format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text, shortened, since a client may send thousands of dimensions."""
    shown = ", ".join(map(str, shape[:8]))
    return f"[{shown}{', ...' if len(shape) > 8 else ''}]"
