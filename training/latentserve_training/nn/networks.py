"""Encoders and decoders, chosen by the configuration.

``conv``      stages that halve the image, ReLU between them (``blocks.py``)
``residual``  the same with residual blocks at each size (He et al., 1603.05027): better, slower
``mlp``       fully connected; without hidden layers, a linear map
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from latentserve_training.nn.blocks import (
    KERNEL,
    PADDING,
    STRIDE,
    ConvDecoder,
    ConvEncoder,
    feature_shape,
)
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The fields of the ``[model]`` table that shape encoder and decoder."""

    network: Literal["conv", "residual", "mlp"] = "conv"
    channels: tuple[int, ...] = (24, 48)  # widths of the encoder stages; the decoder mirrors them
    residual_blocks: int = 1  # at each size, with residual
    # Channels between the stages and the dense layer to the latents, reduced by a 1×1 convolution,
    # with residual; 0 for no reduction. With many latents that layer holds most of the weights.
    code_channels: int = 0
    hidden: tuple[int, ...] = (400,)  # widths between pixels and latents, with mlp; may be empty

    def __post_init__(self) -> None:
        if self.residual_blocks < 1:
            raise ValueError("residual_blocks must be 1 or more")
        if self.code_channels < 0:
            raise ValueError("code_channels must be 0 (all) or more")
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden must list positive widths, not {list(self.hidden)}")


def build_encoder(image_shape: ImageShape, config: NetworkConfig, outputs: int) -> nn.Module:
    """A module from images ``[n, c, h, w]`` in [0, 1] to ``[n, outputs]``.

    Raises:
        ValueError: If the image cannot be halved once per stage.
    """
    if config.network == "mlp":
        return MLPEncoder(image_shape, config.hidden, outputs)
    if config.network == "residual":
        return ResidualEncoder(image_shape, config, outputs)
    return ConvEncoder(image_shape, config.channels, outputs)


def build_decoder(image_shape: ImageShape, config: NetworkConfig, latent_dim: int) -> nn.Module:
    """A module from latents ``[n, latent_dim]`` to logits ``[n, c, h, w]``.

    Raises:
        ValueError: If the image cannot be halved once per stage.
    """
    if config.network == "mlp":
        return MLPDecoder(image_shape, config.hidden, latent_dim)
    if config.network == "residual":
        return ResidualDecoder(image_shape, config, latent_dim)
    return ConvDecoder(image_shape, config.channels, latent_dim)


class MLPEncoder(nn.Module):
    """Images ``[n, c, h, w]`` to ``[n, outputs]`` through fully connected layers."""

    def __init__(self, image_shape: ImageShape, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.layers = _mlp((math.prod(image_shape), *hidden, outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch."""
        features: Tensor = self.layers(images.flatten(1))
        return features


class MLPDecoder(nn.Module):
    """Latents ``[n, latent_dim]`` to logits ``[n, c, h, w]``, mirroring MLPEncoder."""

    def __init__(self, image_shape: ImageShape, hidden: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.layers = _mlp((latent_dim, *reversed(hidden), math.prod(image_shape)))

    def forward(self, latents: Tensor) -> Tensor:
        """Decode a batch."""
        logits: Tensor = self.layers(latents).unflatten(1, self.image_shape)
        return logits


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3×3 convolutions; f is zero at first, so the block starts as x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]
        self.activation = nn.SiLU()

    def forward(self, features: Tensor) -> Tensor:
        """Add the output of the convolutions to ``[n, width, h, w]``."""
        inner = self.activation(self.first(self.activation(features)))
        result: Tensor = features + self.second(inner)
        return result


class ResidualEncoder(nn.Module):
    """Images ``[n, c, h, w]`` to ``[n, outputs]``; each stage halves, then adds residual blocks."""

    def __init__(self, image_shape: ImageShape, config: NetworkConfig, outputs: int) -> None:
        super().__init__()
        channels, height, width = feature_shape(image_shape, config.channels)
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise((image_shape[0], *config.channels)):
            stages += [nn.Conv2d(before, after, KERNEL, STRIDE, PADDING)]
            stages += [ResidualBlock(after) for _ in range(config.residual_blocks)] + [nn.SiLU()]
        if config.code_channels:
            stages += [nn.Conv2d(channels, config.code_channels, 1)]
            channels = config.code_channels
        self.stages = nn.Sequential(*stages)
        self.project = nn.Linear(channels * height * width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch."""
        features: Tensor = self.project(self.stages(images).flatten(1))
        return features


class ResidualDecoder(nn.Module):
    """Latents ``[n, latent_dim]`` to logits ``[n, c, h, w]``, mirroring ResidualEncoder."""

    def __init__(self, image_shape: ImageShape, config: NetworkConfig, latent_dim: int) -> None:
        super().__init__()
        channels, height, width = feature_shape(image_shape, config.channels)
        self.features = (config.code_channels or channels, height, width)
        self.expand = nn.Linear(latent_dim, math.prod(self.features))
        stages: list[nn.Module] = []
        if config.code_channels:
            stages += [nn.Conv2d(config.code_channels, channels, 1)]
        for before, after in itertools.pairwise((*reversed(config.channels), image_shape[0])):
            stages += [ResidualBlock(before) for _ in range(config.residual_blocks)] + [nn.SiLU()]
            stages += [nn.ConvTranspose2d(before, after, KERNEL, STRIDE, PADDING)]
        self.stages = nn.Sequential(*stages)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode a batch."""
        # unflatten, because a view with a size from the batch becomes a constant in the graph.
        logits: Tensor = self.stages(self.expand(latents).unflatten(1, self.features))
        return logits


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
