"""Decoder of PNG and JPEG files, at a cost bounded by the image's size.

A small file can expand a million times, with its pixels, its frames, or its texts and profiles,
which PNG compresses too. So the size in the header is checked before anything is decoded, and
Pillow gets only the chunks of a PNG that hold its pixels.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentserve_server.manifest.reader import ImageSpec

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks for the pixels of a PNG's first image; not those for texts, profiles and animation.
_PNG_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_CHUNK_OVERHEAD_BYTES = 12  # length, name and checksum of a chunk

# The size is checked before a file is decoded, so Pillow's limit would only add a warning.
Image.MAX_IMAGE_PIXELS = None


class UnreadableImage(Exception):
    """The file is not an image of the model's size; the text is for the client."""


def read_image(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Return one image file as uint8 [channels, height, width]. Raises UnreadableImage."""
    try:
        with Image.open(io.BytesIO(_strip_chunks(data)), formats=("PNG", "JPEG")) as file:
            if file.size != (spec.width, spec.height):
                raise UnreadableImage(
                    f"an image of {file.width} x {file.height} pixels was sent, expected "
                    f"{spec.width} x {spec.height}; resize it first"
                )
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


def _to_array(image: Image.Image, channels: int) -> NDArray[Any]:
    """Return the pixels as grey [height, width] or RGB [height, width, 3]."""
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip, not scale
        scaled = np.asarray(image).astype(np.int32) >> 8
        image = Image.fromarray(scaled.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # avoids Pillow's warning about the dropped alpha channel
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _strip_chunks(data: bytes) -> bytes:
    """Return a PNG with the chunks for its pixels only; return other data unchanged."""
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept = [_PNG_SIGNATURE]
    start = len(_PNG_SIGNATURE)
    while start < len(data):
        end = start + int.from_bytes(data[start : start + 4]) + _PNG_CHUNK_OVERHEAD_BYTES
        if data[start + 4 : start + 8] in _PNG_PIXEL_CHUNKS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)
