"""Image shape, and conversion of pixels from uint8 to float32."""

from torch import Tensor

ImageShape = tuple[int, int, int]
"""Channels, height, width."""


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 pixels, 0 to 255, to float32 in [0, 1]."""
    return images.float() / 255.0
