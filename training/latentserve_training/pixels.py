"""Pixels as they are stored and as the models see them."""

from torch import Tensor

ImageShape = tuple[int, int, int]
"""Channels, height, width."""


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [0, 1]."""
    return images.float() / 255.0
