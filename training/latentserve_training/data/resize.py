"""Makes one picture what the models take: uint8, grey or RGB, of one size.

Pixels become what the server makes of the same file: grey by ITU-R 601-2 luma, RGB from grey by
repetition, an alpha channel dropped. Resizing scales the picture until it covers the wanted size,
with antialiasing (Lanczos), and cuts off what sticks out on two opposite sides, the same on both.
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
DEEP_MODES = ("I", "F")  # 16 and more bits; Pillow cuts them off, or opens them as such
# Pillow has no error of its own for damaged files: which of these depends on the format.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


def decode(path: Path, channels: int, size: Size | None) -> np.ndarray:
    """Read one picture as uint8 ``[c, h, w]``; turned as its EXIF orientation says.

    Args:
        path: Of a file in any format that Pillow reads.
        channels: 1 for grey, 3 for RGB, 0 for what the file has; a palette counts as RGB.
        size: To resize to; None for the file's own.

    Raises:
        DataError: If it is no picture, a damaged one, animated, deeper than 8 bits, or so large
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
        raise DataError(f"{path} is no picture that Pillow can read; remove it") from error
    except DAMAGED as error:
        raise DataError(f"{path} is damaged or truncated: {error}; replace or remove it") from error


def to_pixels(image: Image.Image, channels: int, size: Size | None) -> np.ndarray:
    """A picture as uint8 ``[channels, h, w]``."""
    if image.mode not in ("L", "RGB"):
        # By way of RGBA where there may be transparency: Pillow warns of what it drops otherwise.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if size and size != (image.height, image.width):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def shape_images(images: np.ndarray, channels: int, size: Size | None) -> np.ndarray:
    """The same for uint8 images ``[n, c, h, w]`` that are decoded already."""
    channels = channels or images.shape[1]
    if channels == images.shape[1] and size in (None, images.shape[2:]):
        return images
    shaped = np.empty((len(images), channels, *(size or images.shape[2:])), np.uint8)
    for row, image in enumerate(images):
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        shaped[row] = to_pixels(picture, channels, size)
    return shaped


def file_channels(image: Image.Image) -> int:
    """1 for grey, 3 for colour and for palettes, whose colours may all be grey."""
    return 1 if image.mode in GREY_MODES else 3


def _require_plain(image: Image.Image, path: Path) -> None:
    # An MPO file is a JPEG with a preview or a second view behind the first, not an animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError(f"{path} holds {image.n_frames} pictures; save one of them in its place")  # type: ignore[attr-defined]
    # Pillow opens RGB of 16 bits as if it had 8: only the decoder's arguments tell.
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if image.mode.startswith(DEEP_MODES) or any(";16" in str(tile) for tile in tiles):
        raise DataError(f"{path} has more than 8 bits per channel; save it with 8")
    if image.mode not in GREY_MODES | RGB_MODES:
        raise DataError(f"{path} has the colours {image.mode}; save it as grey or RGB")
