"""Input images: arrays, files and PIL images, and their message."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from latentserve.v1 import tensor_pb2
from latentserve_client._codec import to_tensor
from latentserve_client._errors import invalid

ImageFile: TypeAlias = "str | Path | bytes | PIL.Image.Image"
Images: TypeAlias = "NDArray[Any] | ImageFile | Sequence[NDArray[Any]] | Sequence[ImageFile]"
"""Images to send.

An **array** is a batch: [n, channels, height, width], or grey [n, height, width], or one grey
image [height, width]. Three dimensions are always a batch of grey images, so that `x[:3]` means
the same as `x[:4]`.

In a **list of arrays**, each element is one image: [height, width] or [channels, height, width].
So one RGB image is `[image]` or `image[np.newaxis]`.

Arrays are float32, float16 or float64 (sent as float32) in [0, 1], or uint8 in 0..255. Other
integers and bools are refused, because their range is ambiguous.

A **file** is a path, the bytes of a PNG or JPEG file, or a PIL image; or a list of these. PNG and
JPEG files are sent unchanged, and the server converts between grey and RGB as the model requires;
other formats that Pillow reads are sent as PNG. Images are never resized.
"""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


def to_images(images: Images) -> tensor_pb2.Images:
    """Return the message of `images`.

    Raises InvalidArgument for unsupported images, and OSError for an unreadable file.
    """
    if isinstance(images, np.ndarray):
        return tensor_pb2.Images(tensor=to_tensor(_batch(images)))
    if isinstance(images, str | Path | bytes | PIL.Image.Image):
        return tensor_pb2.Images(encoded=_encoded([images]))
    try:
        items = list(images)
    except TypeError:
        raise invalid("images", f"a {type(images).__name__}; expected an array or files") from None
    if not items:
        raise invalid("images", "an empty list; expected at least one image")
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if not arrays:
        return tensor_pb2.Images(encoded=_encoded(items))
    if len(arrays) < len(items):
        raise invalid("images", "a list of arrays and files; expected only arrays or only files")
    return tensor_pb2.Images(tensor=to_tensor(_stacked(arrays)))


def encode_png(image: PIL.Image.Image) -> bytes:
    """Return the PNG file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # small images: speed matters more than size
    return buffer.getvalue()


def read_image(data: bytes, field: str) -> PIL.Image.Image:
    """Return the image of a file in any format that Pillow reads.

    Raises InvalidArgument for `field` if the data is no image or damaged.
    """
    try:
        image = PIL.Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        # Pillow raises one of these for damaged files, depending on the format.
        raise invalid(field, "not an image file; expected PNG or JPEG") from None
    return image


def _batch(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as [n, channels, height, width]."""
    array = _with_wire_dtype(array)
    if array.ndim == 2:
        array = array[np.newaxis, np.newaxis]
    elif array.ndim == 3:
        array = array[:, np.newaxis]
    elif array.ndim != 4:
        raise invalid(
            "images",
            f"shape {list(array.shape)}; expected [n, channels, height, width], "
            "[n, height, width] or [height, width]",
        )
    _check_channels(array.shape[1], array.shape)
    if array.size == 0:
        raise invalid("images", f"shape {list(array.shape)} contains no image")
    return array


def _stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays of one image each as [n, channels, height, width]."""
    shapes = sorted({array.shape for array in arrays})
    dtypes = sorted({str(array.dtype) for array in arrays})
    if len(shapes) > 1 or len(dtypes) > 1:
        raise invalid(
            "images", f"shapes {shapes} of {dtypes} in one list; expected one shape and data type"
        )
    (shape,) = shapes
    if len(shape) not in (2, 3):
        raise invalid(
            "images",
            f"a list of arrays of shape {list(shape)}; in a list, each array is one image, "
            "[height, width] or [channels, height, width]",
        )
    if len(shape) == 3:
        _check_channels(shape[0], shape)
    stacked = np.stack(arrays)
    return _batch(stacked)


def _check_channels(channels: int, shape: tuple[int, ...]) -> None:
    if channels not in (1, 3):
        hint = "; channels come before height and width" if shape[-1] in (1, 3, 4) else ""
        raise invalid(
            "images", f"shape {list(shape)} has {channels} channels; expected 1 or 3{hint}"
        )


def _with_wire_dtype(array: NDArray[Any]) -> NDArray[Any]:
    native = array.dtype.newbyteorder("=")
    if native == np.float64:
        return array.astype(np.float32)
    if native not in (np.float32, np.float16, np.uint8):
        raise invalid(
            "images",
            f"{array.dtype} values; expected float32, float16 or float64 in [0, 1], "
            "or uint8 in 0..255",
        )
    return array


def _encoded(items: Sequence[Any]) -> tensor_pb2.EncodedImages:
    return tensor_pb2.EncodedImages(files=[_file(item, index) for index, item in enumerate(items)])


def _file(item: Any, index: int) -> bytes:
    """Return the PNG or JPEG file of one path, file content or PIL image."""
    field = f"images[{index}]"
    if isinstance(item, PIL.Image.Image):
        return _png(item, field)
    if isinstance(item, str | Path):
        field = str(item)
        item = Path(item).read_bytes()
    if not isinstance(item, bytes):
        raise invalid(
            field, f"a {type(item).__name__}; expected an array, a path, bytes or a PIL image"
        )
    if item.startswith(_SIGNATURES):
        return item
    return _png(read_image(item, field), field)


def _png(image: PIL.Image.Image, field: str) -> bytes:
    if image.mode not in _PNG_MODES:
        raise invalid(
            field, f"a PIL image of mode {image.mode}; convert it to 'L' or 'RGB', 8 bits each"
        )
    return encode_png(image)
