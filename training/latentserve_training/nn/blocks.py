"""The convolutional encoder and decoder that the kinds share.

Each stage halves (or doubles) height and width with a 4×4 kernel: kernel divisible by stride, so
that a transposed convolution covers all pixels equally often and leaves no checkerboard (Odena et
al. 2016, distill.pub/2016/deconv-checkerboard). No normalisation layer: nothing behaves
differently in training and in the exported graph.
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
        ValueError: If there are no stages, or the image cannot be halved that often.
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
        # unflatten, not view with a size from the batch: the exporter would bake that number in.
        logits: Tensor = self.stages(self.expand(latents).unflatten(1, self.features))
        return logits


class ConvPair(nn.Module):
    """A convolutional encoder and its mirror image."""

    def __init__(self, image_shape: ImageShape, widths: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(image_shape, widths, latent_dim)
        self.decoder = ConvDecoder(image_shape, widths, latent_dim)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to what the code's activation function takes, ``[n, d]``."""
        features: Tensor = self.encoder(images)
        return features

    def decode(self, code: Tensor) -> Tensor:
        """A code ``[n, d]`` to logits ``[n, c, h, w]``."""
        logits: Tensor = self.decoder(code)
        return logits


class TiedLayer(nn.Module):
    """One layer each way with the same weights: W x + b, and Wᵀ h + c.

    The rows of W are the features that a unit looks for, and also what it draws: sharing them
    halves the parameters, and no unit can be quiet in one direction and loud in the other.
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
        """W, ``[units, pixels]``; its rows have length 1 if ``unit_rows`` was asked for."""
        return nn.functional.normalize(self.rows, dim=1) if self.unit_rows else self.rows

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to what the code's activation function takes, ``[n, units]``."""
        return nn.functional.linear(images.flatten(1), self.weight, self.code_bias)

    def decode(self, code: Tensor) -> Tensor:
        """A code ``[n, units]`` to logits ``[n, c, h, w]``."""
        return (code @ self.weight + self.pixel_bias).view(-1, *self.image_shape)
