"""Input images: synthetic, MNIST digits, or image files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from latentserve_client import digits
from latentserve_client._images import encode_png, read_image
from latentserve_client._models import ImageSpec

# More images would not affect the measurement, and reading files takes long.
MAX_IMAGES = 2048
_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class BadImages(ValueError):
    """The source of images is unusable."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images of any size, resized to the image shape of each model."""

    name: str  # for the report
    pixels: tuple[PIL.Image.Image, ...] = ()  # empty: synthetic

    def fitted(self, spec: ImageSpec, count: int, seed: int) -> NDArray[np.uint8]:
        """Return `count` images [n, channels, height, width] in 0..255, repeating the source."""
        if not self.pixels:
            return _synthetic(spec, count, seed)
        mode, size = ("L" if spec.channels == 1 else "RGB"), (spec.width, spec.height)
        fitted: list[NDArray[np.uint8]] = []
        for image in self.pixels[:count]:
            same = image.convert(mode)
            if same.size != size:
                same = same.resize(size, PIL.Image.Resampling.LANCZOS)
            array = np.asarray(same)
            fitted.append(array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1))
        whole = np.stack(fitted)
        start = seed % len(whole)
        return np.take(whole, np.arange(start, start + count), axis=0, mode="wrap")


def read_images(source: str) -> ImageSource:
    """Return the images of "synthetic", "digits" (bundled), an IDX file, a folder or an image file.

    A folder contains the IDX files of MNIST, or image files at any depth. Raises BadImages for a
    source without images, OSError for an unreadable one.
    """
    if source == "synthetic":
        return ImageSource(source)
    if source == "digits":
        return ImageSource(source, _from_arrays(digits.bundled().images))
    path = Path(source)
    try:
        if path.is_dir():
            return ImageSource(str(path), _from_folder(path))
        data = path.read_bytes()
        if data[:2] in (b"\0\0", b"\x1f\x8b"):
            return ImageSource(str(path), _from_arrays(digits.read_idx(path)))
        return ImageSource(str(path), (read_image(data, str(path)),))
    except ValueError as error:
        raise BadImages(getattr(error, "message", str(error))) from None


def to_files(images: NDArray[np.uint8], form: str) -> list[bytes]:
    """Return images [n, channels, height, width] as files of format `form`, "png" or "jpeg"."""
    files = []
    for image in images:
        picture = PIL.Image.fromarray(
            image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        )
        if form == "png":
            files.append(encode_png(picture))
        else:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=90)
            files.append(buffer.getvalue())
    return files


def _from_folder(folder: Path) -> tuple[PIL.Image.Image, ...]:
    try:
        return _from_arrays(digits.read_mnist(folder).images)
    except FileNotFoundError:
        pass  # no IDX files: read image files
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _FILES)
    if not paths:
        raise BadImages(f"{folder}: contains neither the IDX files of MNIST nor image files")
    return tuple(read_image(path.read_bytes(), str(path)) for path in paths[:MAX_IMAGES])


def _from_arrays(arrays: NDArray[np.uint8]) -> tuple[PIL.Image.Image, ...]:
    if arrays.ndim not in (3, 4):
        raise BadImages(f"array of shape {list(arrays.shape)}; expected [n, height, width]")
    return tuple(PIL.Image.fromarray(array) for array in arrays[:MAX_IMAGES])


def _synthetic(spec: ImageSpec, count: int, seed: int) -> NDArray[np.uint8]:
    """Return smooth blobs instead of noise, because files of noise compress unusually badly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : spec.height, 0 : spec.width]
    centres = rng.uniform(0.2, 0.8, (count, spec.channels, 2, 1, 1))
    height, width = max(spec.height, 1), max(spec.width, 1)
    squares = ((y / height - centres[:, :, 0]) ** 2 + (x / width - centres[:, :, 1]) ** 2) / 0.03
    blobs: NDArray[np.uint8] = np.rint(255 * np.exp(-squares)).astype(np.uint8)
    return blobs
