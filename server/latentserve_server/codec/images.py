"""Reads the PNG and JPEG files that callers send, at no more cost than the image has pixels.

A file of some bytes can claim a million times more: of pixels, of texts and profiles, which PNG
compresses too, or of frames. So the size in the header is checked before anything is decoded,
and of a PNG only what makes up the pixels is given to Pillow.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentserve_server.manifest.reader import ImageSpec

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What makes up the pixels of a PNG's first image; texts, profiles and animation do not.
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_FRAME_BYTES = 12  # of a chunk: its length, its name, and a checksum

# The size is checked before a file is decoded, so Pillow's own guess at what is too large
# only adds a warning.
Image.MAX_IMAGE_PIXELS = None


class UnreadableImage(Exception):
    """The file is no image of the model's size; the text is for the caller."""


def read_image(data: bytes, spec: ImageSpec) -> NDArray[np.uint8]:
    """Return one image file as uint8 [channels, height, width]; raises UnreadableImage."""
    try:
        with Image.open(io.BytesIO(_pixels_of(data)), formats=("PNG", "JPEG")) as file:
            if file.size != (spec.width, spec.height):
                raise UnreadableImage(
                    f"an image of {file.width} x {file.height} pixels was sent, expected "
                    f"{spec.width} x {spec.height}; resize it first"
                )
            array = _to_array(file, spec.channels)
    except UnreadableImage:
        raise
    except Exception as error:  # whatever a broken file makes of a decoder, the caller sent it
        raise UnreadableImage(
            f"{len(data)} bytes were sent that cannot be read as PNG or JPEG"
        ) from error
    if spec.channels == 1:
        return array[np.newaxis]
    return np.moveaxis(array, 2, 0)


def _to_array(image: Image.Image, channels: int) -> NDArray[Any]:
    """Return the pixels in grey, or in red, green and blue: [height, width(, 3)]."""
    if image.mode.startswith("I"):  # 16 bits per pixel; Pillow would clip, not scale
        deep = np.asarray(image).astype(np.int32) >> 8
        image = Image.fromarray(deep.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # otherwise Pillow warns that it drops the alpha
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _pixels_of(data: bytes) -> bytes:
    """Return a PNG without the chunks that are not about its pixels; anything else as it is."""
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept = [_PNG_SIGNATURE]
    start = len(_PNG_SIGNATURE)
    while start < len(data):
        end = start + int.from_bytes(data[start : start + 4]) + _PNG_FRAME_BYTES
        if data[start + 4 : start + 8] in _PNG_PIXELS:
            kept.append(data[start:end])
        start = end
    return b"".join(kept)
