"""Image data sets: the output of a reader and the input of a run."""

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentserve_training.errors import DataError
from latentserve_training.pixels import ImageShape

# Reading, splitting and joining hold each image twice, and metrics and plots need memory as well.
COPIES = 3


@dataclass(frozen=True)
class Part:
    """Training or test images as read from a source."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray | None = None  # integers from 0, [n]

    def head(self, count: int) -> "Part":
        """The first ``count`` images, or all images if it is 0."""
        return self.rows(slice(0, count or None))

    def rows(self, chosen: slice | np.ndarray) -> "Part":
        """The chosen images and their labels."""
        labels = None if self.labels is None else self.labels[chosen]
        return Part(self.images[chosen], labels)


@dataclass(frozen=True)
class Source:
    """The training and test images of a source, and its name."""

    name: str
    train: Part
    test: Part


@dataclass(frozen=True)
class Labels:
    """Classes of the images, int64 ``[n]`` each: used by metrics, never by training."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def all_train(self) -> Tensor:
        """Labels in the order of :attr:`ImageData.all_train`."""
        return torch.cat([self.train, self.validation])


@dataclass(frozen=True)
class ImageData:
    """Images of a run, uint8 ``[n, channels, height, width]``, with their name and hash."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    # Of all training images, including validation, after decoding and resizing: uint8, C order.
    sha256: str
    labels: Labels | None = None

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def all_train(self) -> Tensor:
        """Training and validation images, to which the baselines are fitted."""
        return torch.cat([self.train, self.validation])


def held_out_count(count: int, fraction: float, where: object) -> int:
    """The number of test images to hold out of ``count`` images of a set without test images.

    Raises:
        DataError: If no training image or no test image would remain.
    """
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise DataError(
            f"{where} holds {count} image{'' if count == 1 else 's'} and no test images: too few "
            f"to hold out test images with data.test_fraction = {fraction}"
        )
    return held_out


def require_memory(image_bytes: int, where: object) -> None:
    """Check that the images fit into the memory of this machine, before it starts to swap.

    Raises:
        DataError: If COPIES times ``image_bytes`` exceed the memory.
    """
    if sys.platform == "win32":  # os.sysconf does not exist there
        return
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if COPIES * image_bytes > memory_bytes:
        raise DataError(
            f"{where}: {image_bytes / 1e9:.1f} GB of pixels are too many for the "
            f"{memory_bytes / 1e9:.1f} GB of memory of this machine, because training needs "
            f"{COPIES} times their size; set a smaller data.image_size, or data.max_train_images "
            "and data.max_test_images"
        )
