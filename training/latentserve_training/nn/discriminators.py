"""Discriminator network of the adversarial kinds of model.

It has no batch normalisation, because the logit of an image would depend on the other images of the
batch. The configuration chooses how D is regularised instead: by spectral normalisation, by a
gradient penalty (``adversarial_losses.gradient_penalty``), or by both.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latentserve_training.nn.blocks import KERNEL, PADDING, STRIDE, feature_shape
from latentserve_training.nn.networks import NetworkConfig
from latentserve_training.pixels import ImageShape

LEAK = 0.2  # slope below zero (Radford et al. 2015, 1511.06434): G needs gradients from all units
VARIANCE_FLOOR = 1e-8  # keeps the gradient of the square root finite if all images are equal


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(NetworkConfig):
    """The fields of the ``[model]`` table that shape the discriminator."""

    # Widths of the stages that halve the image; not used if network is mlp.
    discriminator_channels: tuple[int, ...] = (24, 48)
    discriminator_hidden: tuple[int, ...] = (128,)  # widths of the fully connected stages
    spectral_norm: bool = False
    minibatch_stddev: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.discriminator_hidden):
            raise ValueError(
                f"discriminator_hidden must list positive widths, not {self.discriminator_hidden}"
            )
        if not self.discriminator_stages:
            raise ValueError("discriminator_hidden must not be empty where network is mlp")

    @property
    def discriminator_stages(self) -> int:
        """The number of stages whose features can be compared."""
        convolutional = 0 if self.network == "mlp" else len(self.discriminator_channels)
        return convolutional + len(self.discriminator_hidden)


class Discriminator(nn.Module):
    """Images ``[n, c, h, w]`` in [0, 1] to features and logits ``[n]``, positive for real images.

    ``spectral_norm`` (Miyato et al. 2018, 1802.05957) divides each weight by its largest singular
    value, tracked by one power iteration per training step: the slope of D is then at most 1.
    ``minibatch_stddev`` (Karras et al. 2017, 1710.10196, section 3) gives the last layer the
    standard deviation over the batch, by which it can detect collapsed samples.
    """

    def __init__(self, image_shape: ImageShape, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.minibatch_stddev = config.minibatch_stddev
        stages: list[nn.Module] = []
        features = math.prod(image_shape)
        if config.network != "mlp":
            widths = config.discriminator_channels
            features = math.prod(feature_shape(image_shape, widths))
            for before, after in itertools.pairwise((image_shape[0], *widths)):
                convolution = nn.Conv2d(before, after, KERNEL, STRIDE, PADDING)
                stages.append(nn.Sequential(convolution, nn.LeakyReLU(LEAK)))
        for width in config.discriminator_hidden:
            stages.append(
                nn.Sequential(nn.Flatten(), nn.Linear(features, width), nn.LeakyReLU(LEAK))
            )
            features = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(features + self.minibatch_stddev, 1)
        if config.spectral_norm:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    spectral_norm(layer)

    def forward(self, images: Tensor, layer: int = 1) -> tuple[Tensor, Tensor]:
        """The features of stage ``layer``, 1 or more, as rows ``[n, f]``; and logits ``[n]``."""
        hidden = 2.0 * images - 1.0  # to [-1, 1], centred on zero like the weights
        features = hidden
        for depth, stage in enumerate(self.stages, start=1):
            hidden = stage(hidden)
            if depth == layer:
                features = hidden.flatten(1)
        hidden = hidden.flatten(1)
        if self.minibatch_stddev:
            variance = hidden.var(0, correction=0) + VARIANCE_FLOOR
            spread = variance.sqrt().mean().expand(len(hidden), 1)
            hidden = torch.cat([hidden, spread], dim=1)
        logits: Tensor = self.head(hidden)
        return features, logits[:, 0]
