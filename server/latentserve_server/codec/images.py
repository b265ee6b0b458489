"""Decoder of PNG and JPEG files, at a cost bounded by the image's size.

A small file can expand a million times, with its pixels, its frames, or its texts and profiles,
which PNG compresses too. Many small segments of a JPEG, or scans, cost minutes. So the size in the
header and the length of the file are checked before anything is decoded, and Pillow gets only the
parts that hold the pixels.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentserve_server.codec.image_file_parts import image_size, pixel_parts
from latentserve_server.manifest.reader import ImageSpec

MAX_FILE_BYTES = 64 * 1024
MAX_FILE_BYTES_PER_VALUE = 16
"""A file may have `MAX_FILE_BYTES`, plus these for each of the image's values.

64 bits per pixel are the most that PNG has; the rest is for metadata.
"""

# The size is checked before a file is decoded, so Pillow's limit would only add a warning.
Image.MAX_IMAGE_PIXELS = None


class UnreadableImage(Exception):
    """The file is not an image of the model's size; the text is for the client."""


def read_image(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Return one image file as uint8 [channels, height, width]. Raises UnreadableImage."""
    try:
        _check_size(image_size(data), spec)
        _check_length(data, spec)
        with Image.open(io.BytesIO(pixel_parts(data)), formats=("PNG", "JPEG")) as file:
            _check_size(file.size, spec)  # a PNG may have a second header
            array = _to_array(file, spec.channels)
    except UnreadableImage:
        raise
    except Exception as error:  # any failure of the decoder is an error of the sent file
        raise UnreadableImage(
            f"{len(data)} bytes were sent that cannot be read as PNG or JPEG"
        ) from error
    if spec.channels == 1:
        return array[np.newaxis]
    return np.moveaxis(array, 2, 0)


def _check_size(size: tuple[int, int], spec: ImageSpec) -> None:
    if size != (spec.width, spec.height):
        raise UnreadableImage(
            f"an image of {size[0]} x {size[1]} pixels was sent, expected "
            f"{spec.width} x {spec.height}; resize it first"
        )


def _check_length(data: bytes, spec: ImageSpec) -> None:
    values = spec.channels * spec.height * spec.width
    limit = MAX_FILE_BYTES + MAX_FILE_BYTES_PER_VALUE * values
    if len(data) > limit:
        raise UnreadableImage(
            f"{len(data)} bytes were sent for an image of {spec.width} x {spec.height} pixels, "
            f"expected at most {limit}; save it without metadata"
        )


def _to_array(image: Image.Image, channels: int) -> NDArray[Any]:
    """Return the pixels as grey [height, width] or RGB [height, width, 3]."""
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip, not scale
        scaled = np.asarray(image).astype(np.int32) >> 8
        image = Image.fromarray(scaled.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # avoids Pillow's warning about the dropped alpha channel
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))
