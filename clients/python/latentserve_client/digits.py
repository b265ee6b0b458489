"""Handwritten digits: 100 bundled images, or the MNIST test set from a folder.

The bundled digits are from the test set of MNIST, by Yann LeCun, Corinna Cortes and Christopher
J. C. Burges (http://yann.lecun.com/exdb/mnist/): ten of each class, in the order 0, 1, ... 9, 0...
"""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FOLDERS = ("", "raw", "MNIST/raw")  # torchvision keeps the files in MNIST/raw
_IMAGES = ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte")
_LABELS = ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte")


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of digits and their labels."""

    images: NDArray[np.uint8]  # [n, height, width], 0 is background
    labels: NDArray[np.uint8]  # [n], 0..9

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | list[int]) -> Digits:
        return Digits(self.images[rows], self.labels[rows])


def bundled() -> Digits:
    """Return the 100 digits of this package."""
    path = resources.files("latentserve_client") / "digits.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        return Digits(arrays["images"], arrays["labels"])


def choose(digits: Digits, wanted: str) -> Digits:
    """Return the first N digits for "N", or one image for each label in a list like "3,1,4,1".

    Repeated labels give different images. Raises ValueError for any other text, and for more digits
    than available.
    """
    parts = [part.strip() for part in wanted.split(",")]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()  # "7," is the digit seven; "7" is the first seven digits
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{wanted!r} is neither a number of digits nor a list like 0,1,2")
    if "," not in wanted:
        count = int(wanted)
        if not 1 <= count <= len(digits):
            raise ValueError(f"{count} digits wanted; there are {len(digits)}")
        return digits[:count]
    rows: list[int] = []
    for part in parts:
        label = int(part)
        of_label = np.flatnonzero(digits.labels == label).tolist()
        unused = [row for row in of_label if row not in rows]
        if not unused:
            have = f"there are {len(of_label)}" if of_label else "digits are 0 to 9"
            raise ValueError(f"no further digit {label}: {have}")
        rows.append(unused[0])
    return digits[rows]


def read_mnist(folder: Path) -> Digits:
    """Read the MNIST test set from a folder with the t10k IDX files, plain or gzipped.

    A folder made by torchvision works too. Raises FileNotFoundError where the files are not
    there, and ValueError where they are damaged.
    """
    digits = Digits(read_idx(_find(folder, _IMAGES)), read_idx(_find(folder, _LABELS)))
    if digits.images.ndim != 3 or digits.labels.shape != digits.images.shape[:1]:
        raise ValueError(f"{folder}: the images and the labels do not belong together")
    return digits


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not. Raises ValueError for any other file."""
    data = path.read_bytes()
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        zeros, dtype, rank = struct.unpack_from(">HBB", data)
        shape: tuple[Any, ...] = struct.unpack_from(f">{rank}I", data, 4)
    except (OSError, EOFError, struct.error):
        raise ValueError(f"{path}: not an IDX file") from None
    start = 4 + 4 * rank
    if zeros != 0 or dtype != 8 or math.prod(shape) != len(data) - start:
        raise ValueError(f"{path}: not a whole IDX file of unsigned bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    for inner in _FOLDERS:
        for name in names:
            for suffix in ("", ".gz"):
                path = folder / inner / (name + suffix)
                if path.is_file():
                    return path
    raise FileNotFoundError(f"{folder}: no {names[0]} or {names[0]}.gz in it or its MNIST/raw")
