"""Autoencoder: a bottleneck of ``latent_dim`` latents without a prior.

Hinton & Salakhutdinov 2006 (Science 313). Its linear counterpart is PCA (Baldi & Hornik 1989),
which is therefore the baseline of its reconstruction error.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import LatentModel, autoencoder_graphs
from latentserve_training.nn.losses import cross_entropy, squared_error
from latentserve_training.nn.networks import NetworkConfig, build_decoder, build_encoder
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(NetworkConfig):
    """The fields of the ``[model]`` table."""

    latent_dim: int = 32
    reconstruction_loss: Literal["squared_error", "cross_entropy"] = "squared_error"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")


class Autoencoder(LatentModel):
    """x → z = f(x) → x̂ = sigmoid(g(z)), trained to reproduce its input."""

    kind = "autoencoder"
    title = "Autoencoder"

    def __init__(self, image_shape: ImageShape, config: AutoencoderConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        self.reconstruction_loss = config.reconstruction_loss
        self.encoder = build_encoder(image_shape, config, config.latent_dim)
        self.decoder = build_decoder(image_shape, config, config.latent_dim)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]``."""
        latents: Tensor = self.encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""
        return torch.sigmoid(self.decoder(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``."""
        return self.decode(self.encode(images))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The reconstruction loss, and the squared error per image for the plot of the losses."""
        return self.reconstruction_losses(source=images, target=images)

    def reconstruction_losses(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Losses between the reconstruction of ``source`` and ``target``."""
        logits = self.decoder(self.encode(source))
        error = squared_error(torch.sigmoid(logits), target).mean()
        if self.reconstruction_loss == "cross_entropy":
            return {"loss": cross_entropy(logits, target).mean(), "squared_error": error}
        return {"loss": error, "squared_error": error}

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode and reconstruct."""
        return autoencoder_graphs(self)
