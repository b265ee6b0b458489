"""Stochastic binarisation of grey images, for models with a Bernoulli likelihood.

A pixel becomes 1 with its grey level as probability (Salakhutdinov & Murray 2008). Published
log-likelihoods depend on when the bits are sampled: with ``dynamic`` a model is trained on new bits
of an image in each epoch, with ``static`` on the same bits, to which it can overfit. The difference
is about two nats in Burda et al. (1509.00519).
"""

import zlib
from typing import Literal

import torch
from torch import Tensor

Binarisation = Literal["none", "static", "dynamic"]


def dynamic_bits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bits as floats, ``[n, c, h, w]`` like the images in [0, 1], sampled anew at each call."""
    thresholds = torch.rand(images.shape, generator=generator)
    return (thresholds.to(images.device) < images).to(images.dtype)


def static_bits(images: Tensor, seed: int) -> Tensor:
    """Bits as floats, ``[n, c, h, w]`` like the images in [0, 1], always the same for an image.

    They are sampled with a seed derived from ``seed`` and the pixels of the image, so they depend
    neither on the batch nor on the order of the images.
    """
    levels = (images * 255.0).round().to(torch.uint8).cpu().contiguous().numpy()
    generator = torch.Generator()
    bits = torch.empty_like(images)
    for index, image in enumerate(levels):
        generator.manual_seed(zlib.crc32(image.tobytes(), seed % 2**32))
        bits[index] = dynamic_bits(images[index], generator)
    return bits
