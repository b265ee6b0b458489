"""Convolutional encoder and decoder, and a layer with tied weights.

Each stage halves (or doubles) height and width with a 4×4 kernel. The kernel size is divisible by
the stride, so that a transposed convolution covers all pixels equally often and creates no
checkerboard pattern (Odena et al. 2016, distill.pub/2016/deconv-checkerboard). Without
normalisation layers, training and the exported graph compute the same function.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from latentserve_training.pixels import ImageShape

KERNEL, STRIDE, PADDING = 4, 2, 1


def feature_shape(image_shape: ImageShape, widths: tuple[int, ...]) -> ImageShape:
    """Channels, height and width after the last encoder stage.

    Raises:
        ValueError: If there are no stages, or the image cannot be halved once per stage.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"channels must list one or more positive widths, not {list(widths)}")
    _, height, width = image_shape
    factor = STRIDE ** len(widths)
    if height % factor or width % factor:
        sides = [max(1, round(side / factor)) * factor for side in (height, width)]
        nearest = sides[0] if sides[0] == sides[1] else sides
        raise ValueError(
            f"images of {height}×{width} cannot be halved {len(widths)} times: resize them with "
            f"data.image_size={nearest}, or list fewer stages in model.channels"
        )
    return widths[-1], height // factor, width // factor


class ConvEncoder(nn.Module):
    """Images ``[n, c, h, w]`` in [0, 1] to features ``[n, outputs]``."""

    def __init__(self, image_shape: ImageShape, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        features = feature_shape(image_shape, widths)
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise((image_shape[0], *widths)):
            stages += [nn.Conv2d(before, after, KERNEL, STRIDE, PADDING), nn.ReLU()]
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(math.prod(features), outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch."""
        features: Tensor = self.project(self.stages(images).flatten(1))
        return features


class ConvDecoder(nn.Module):
    """Latents ``[n, latent_dim]`` to logits ``[n, c, h, w]``; their sigmoid is the image."""

    def __init__(self, image_shape: ImageShape, widths: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.features = feature_shape(image_shape, widths)
        self.expand = nn.Linear(latent_dim, math.prod(self.features))
        outwards = (*reversed(widths), image_shape[0])
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise(outwards):
            stages += [nn.ReLU(), nn.ConvTranspose2d(before, after, KERNEL, STRIDE, PADDING)]
        self.stages = nn.Sequential(*stages)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode a batch."""
        # unflatten, because a view with a size from the batch becomes a constant in the graph.
        logits: Tensor = self.stages(self.expand(latents).unflatten(1, self.features))
        return logits


class ConvPair(nn.Module):
    """A convolutional encoder and the decoder that mirrors it."""

    def __init__(self, image_shape: ImageShape, widths: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(image_shape, widths, latent_dim)
        self.decoder = ConvDecoder(image_shape, widths, latent_dim)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents before the activation function, ``[n, d]``."""
        features: Tensor = self.encoder(images)
        return features

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to logits ``[n, c, h, w]``."""
        logits: Tensor = self.decoder(latents)
        return logits


class TiedLayer(nn.Module):
    """One layer in each direction with the same weights: W x + b, and Wᵀ h + c.

    A row of W is the feature that a unit detects and also the one that it adds to the image.
    Sharing W halves the parameters, and the scale of a unit cannot be shifted from the encoder to
    the decoder.
    """

    def __init__(self, image_shape: ImageShape, units: int, unit_rows: bool = False) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.unit_rows = unit_rows
        pixels = math.prod(image_shape)
        self.rows = nn.Parameter(torch.empty(units, pixels))
        nn.init.xavier_uniform_(self.rows)
        self.code_bias = nn.Parameter(torch.zeros(units))
        self.pixel_bias = nn.Parameter(torch.zeros(pixels))

    @property
    def weight(self) -> Tensor:
        """W, ``[units, pixels]``; its rows have length 1 if ``unit_rows`` is set."""
        return nn.functional.normalize(self.rows, dim=1) if self.unit_rows else self.rows

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents before the activation function, ``[n, units]``."""
        return nn.functional.linear(images.flatten(1), self.weight, self.code_bias)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, units]`` to logits ``[n, c, h, w]``."""
        return (latents @ self.weight + self.pixel_bias).view(-1, *self.image_shape)
