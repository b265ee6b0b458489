"""Reader of IDX, the file format of MNIST: a header of big-endian sizes, then bytes.

A data set has four files: training and test images, and optionally their labels.
Source: yann.lecun.com/exdb/mnist
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from latentserve_training.data.images import Part, Source
from latentserve_training.errors import DataError

IMAGES_MAGIC = 0x00000803  # unsigned bytes, three dimensions
LABELS_MAGIC = 0x00000801
TRAIN_FILE = "train-images-idx3-ubyte"
TEST_FILE = "t10k-images-idx3-ubyte"
TRAIN_LABELS_FILE = "train-labels-idx1-ubyte"
TEST_LABELS_FILE = "t10k-labels-idx1-ubyte"
REDO = "download it again (with --download, into an empty folder)"


def holds_idx(folder: Path) -> bool:
    """Whether the folder holds a file of images in this format."""
    return any(find_idx(folder, name) for name in (TRAIN_FILE, TEST_FILE))


def read_idx_folder(folder: Path) -> Source:
    """Read the four files, directly in the folder or in torchvision's layout; labels are optional.

    Raises:
        DataError: If a file is missing or damaged, or images and labels do not match.
    """
    return Source(
        folder.resolve().name,
        _read_part(folder, TRAIN_FILE, TRAIN_LABELS_FILE),
        _read_part(folder, TEST_FILE, TEST_LABELS_FILE),
    )


def find_idx(folder: Path, name: str) -> Path | None:
    """The path of the file, plain or gzip; None if it does not exist."""
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def read_idx_images(path: Path) -> np.ndarray:
    """Read one IDX image file, plain or gzip, as uint8 ``[n, 1, height, width]``.

    Raises:
        DataError: If it is not such a file, or its size differs from that in its header.
    """
    images = _read_idx(path, IMAGES_MAGIC, "images (labels, or another format?)")
    count, height, width = images.shape
    if not images.size:
        raise DataError(f"{path} holds no pixels: {count} images of {height}×{width}; {REDO}")
    return images.reshape(count, 1, height, width)


def read_idx_labels(path: Path) -> np.ndarray:
    """Read one IDX label file, plain or gzip, as uint8 ``[n]``.

    Raises:
        DataError: If it is not such a file, or its size differs from that in its header.
    """
    return _read_idx(path, LABELS_MAGIC, "labels")


def _read_idx(path: Path, magic: int, content_name: str) -> np.ndarray:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; {REDO}") from error
    header_bytes = 4 + 4 * (magic & 0xFF)  # the last byte is the number of dimensions
    if len(content) < header_bytes:
        raise DataError(f"{path} is {len(content)} bytes long, less than an IDX header; {REDO}")
    found, *shape = (int.from_bytes(content[i : i + 4], "big") for i in range(0, header_bytes, 4))
    if found != magic:
        raise DataError(
            f"{path} starts with 0x{found:08x}, not 0x{magic:08x}: "
            f"it is not an IDX file of uint8 {content_name}"
        )
    expected = header_bytes + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{path} is {len(content)} bytes long, but its header specifies {expected}; {REDO}"
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=header_bytes)
    return values.reshape(shape).copy()


def _read_part(folder: Path, images_file: str, labels_file: str) -> Part:
    path = find_idx(folder, images_file)
    if path is None:
        raise DataError(
            f"{folder} holds no {images_file} or {images_file}.gz, neither directly nor in raw/ or "
            "MNIST/raw/; put the files of MNIST there, or add --download"
        )
    images = read_idx_images(path)
    # Metrics need the labels of both parts, so both are read or neither.
    both = all(find_idx(folder, name) for name in (TRAIN_LABELS_FILE, TEST_LABELS_FILE))
    labels_path = find_idx(folder, labels_file) if both else None
    if labels_path is None:
        return Part(images)
    labels = read_idx_labels(labels_path)
    if len(labels) != len(images):
        raise DataError(
            f"{folder} holds different numbers of labels and images: {len(labels):,} in "
            f"{labels_path.name}, {len(images):,} in {path.name}"
        )
    return Part(images, labels)
