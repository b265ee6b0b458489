"""Decodes and resizes image files to uint8 arrays, grey or RGB, of one size.

Pixels are equal to those that the server decodes from the same file: grey by ITU-R 601-2 luma, RGB
from grey by repetition, no alpha channel. Resizing scales the image with antialiasing (Lanczos)
until it covers the requested size, and crops the overhang equally on two opposite sides.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from latentserve_training.errors import DataError

Size = tuple[int, int]
"""Height, width."""

GREY_MODES = frozenset({"1", "L", "LA"})
RGB_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
DEEP_MODES = ("I", "F")  # prefixes of modes with 16 or more bits, which Pillow would truncate
# Pillow has no error class for damaged files: the class depends on the format.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


def decode(path: Path, channels: int, size: Size | None) -> np.ndarray:
    """Read one image file as uint8 ``[c, h, w]``, rotated by its EXIF orientation.

    Args:
        path: A file in any format that Pillow reads.
        channels: 1 for grey, 3 for RGB, 0 for that of the file; a palette counts as RGB.
        size: Size after resizing; None for that of the file.

    Raises:
        DataError: If it is not an image, or is damaged, animated, deeper than 8 bits, or so large
            that it may be a decompression bomb (Pillow's limit).
    """
    try:
        with Image.open(path) as image:
            _require_plain(image, path)
            upright = ImageOps.exif_transpose(image)
            return to_pixels(upright, channels or file_channels(image), size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} may be a decompression bomb: {error}; make it smaller") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that Pillow can read; remove it") from error
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or truncated: {error}; replace or remove it") from error


def to_pixels(image: Image.Image, channels: int, size: Size | None) -> np.ndarray:
    """Convert an image to uint8 ``[channels, h, w]``."""
    if image.mode not in ("L", "RGB"):
        # Through RGBA if the image may be transparent: otherwise Pillow warns that it drops alpha.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if size and size != (image.height, image.width):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def shape_images(images: np.ndarray, channels: int, size: Size | None) -> np.ndarray:
    """Convert and resize decoded uint8 images ``[n, c, h, w]``."""
    channels = channels or images.shape[1]
    if channels == images.shape[1] and size in (None, images.shape[2:]):
        return images
    shaped = np.empty((len(images), channels, *(size or images.shape[2:])), np.uint8)
    for row, image in enumerate(images):
        decoded = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        shaped[row] = to_pixels(decoded, channels, size)
    return shaped


def file_channels(image: Image.Image) -> int:
    """1 for grey; 3 for colour and for palettes, even if all their colours are grey."""
    return 1 if image.mode in GREY_MODES else 3


def _require_plain(image: Image.Image, path: Path) -> None:
    # An MPO file is a JPEG with a preview or a second view after the first, not an animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError(f"{path} holds {image.n_frames} frames; replace it with one of them")  # type: ignore[attr-defined]
    # Pillow opens 16-bit RGB as 8-bit RGB: only the arguments of the decoder show the depth.
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if image.mode.startswith(DEEP_MODES) or any(";16" in str(tile) for tile in tiles):
        raise DataError(f"{path} has more than 8 bits per channel; save it with 8")
    if image.mode not in GREY_MODES | RGB_MODES:
        raise DataError(f"{path} has the colour mode {image.mode}; save it as grey or RGB")
