"""What a reader gives, and what a run gets."""

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentserve_training.errors import DataError
from latentserve_training.pixels import ImageShape

# Reading, splitting and joining hold each image twice, and the figures need room as well.
COPIES = 3


@dataclass(frozen=True)
class Part:
    """Training or test images as they were read."""

    images: np.ndarray  # uint8 [n, channels, height, width]
    labels: np.ndarray | None = None  # whole numbers from 0, [n]

    def head(self, count: int) -> "Part":
        """The first ``count`` images, or all of them where it is 0."""
        return self.rows(slice(0, count or None))

    def rows(self, chosen: slice | np.ndarray) -> "Part":
        """Those images."""
        labels = None if self.labels is None else self.labels[chosen]
        return Part(self.images[chosen], labels)


@dataclass(frozen=True)
class Source:
    """Both parts, and what they are called."""

    name: str
    train: Part
    test: Part


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
    """uint8 images ``[n, channels, height, width]``, and what they are."""

    train: Tensor
    validation: Tensor
    test: Tensor
    name: str
    # Of all training images as models see them, validation included: uint8, C order, after
    # decoding and resizing.
    sha256: str
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


def held_out_count(count: int, fraction: float, where: object) -> int:
    """How many of ``count`` images become test images, where there is no test part.

    Raises:
        DataError: If that leaves none on one of the two sides.
    """
    held_out = round(count * fraction)
    if not 0 < held_out < count:
        raise DataError(
            f"{where} holds {count} image{'' if count == 1 else 's'} and no test part: too few to "
            f"hold some out at data.test_fraction = {fraction}"
        )
    return held_out


def require_memory(image_bytes: int, where: object) -> None:
    """Refuse images that this machine cannot hold, before it starts to swap.

    Raises:
        DataError: If ``image_bytes`` of pixels, and what is made of them, exceed its memory.
    """
    if sys.platform == "win32":  # does not tell
        return
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if COPIES * image_bytes > memory_bytes:
        raise DataError(
            f"{where}: {image_bytes / 1e9:.1f} GB of pixels are too many for this machine's "
            f"{memory_bytes / 1e9:.1f} GB of memory, of which {COPIES} times as much is needed; "
            "set a smaller data.image_size, or data.max_train_images and data.max_test_images"
        )
