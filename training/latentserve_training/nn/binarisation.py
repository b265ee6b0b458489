"""Grey images to bits, so that a Bernoulli decoder gives them a probability.

A pixel becomes 1 with its grey level as probability (Salakhutdinov & Murray 2008). How often that
is drawn is part of a published figure: with ``dynamic`` a model sees other bits of an image in each
epoch, with ``static`` always the same ones, and may learn them by heart. Burda et al. (1509.00519)
lose about two nats by it.
"""

import zlib
from typing import Literal

import torch
from torch import Tensor

Binarisation = Literal["none", "static", "dynamic"]


def dynamic_bits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bits as floats, ``[n, c, h, w]`` like the images in [0, 1], drawn anew at each call."""
    thresholds = torch.rand(images.shape, generator=generator)
    return (thresholds.to(images.device) < images).to(images.dtype)


def static_bits(images: Tensor, seed: int) -> Tensor:
    """Bits as floats, ``[n, c, h, w]`` like the images in [0, 1], the same for an image always.

    They are drawn from a seed made of ``seed`` and the image's own pixels: neither the batch nor
    the order of the images changes them.
    """
    levels = (images * 255.0).round().to(torch.uint8).cpu().contiguous().numpy()
    generator = torch.Generator()
    bits = torch.empty_like(images)
    for index, image in enumerate(levels):
        generator.manual_seed(zlib.crc32(image.tobytes(), seed % 2**32))
        bits[index] = dynamic_bits(images[index], generator)
    return bits
