"""Linear autoencoder, whose optimum is the projection of PCA.

    z = E (x − μ),  x̂ = D z + μ,  minimise Σ ‖x − x̂‖².

Bourlard & Kamp 1988 (Biol. Cybern. 59), Baldi & Hornik 1989 (Neural Networks 2): every minimum
projects onto the ``latent_dim`` leading principal directions, and all other stationary points are
saddle points. Adam and the singular value decomposition therefore have the same optimum; ``fit``
chooses between them. Adam determines only the subspace, D E = V Vᵀ, up to an invertible map of the
latents; the closed form gives E = Vᵀ and D = V, with uncorrelated latents sorted by variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from latentserve_training.graphs.spec import Graph
from latentserve_training.metrics.baselines import fit_pca, mean_row
from latentserve_training.models.base import LatentModel, autoencoder_graphs
from latentserve_training.nn.losses import squared_error
from latentserve_training.optim.optimizer import OptimizerConfig
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The fields of the ``[model]`` table."""

    latent_dim: int = 32
    fit: Literal["adam", "closed_form"] = "adam"  # closed_form needs one epoch, for validation

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")


class LinearAutoencoder(LatentModel):
    """Two matrices and the mean image."""

    kind = "linear"
    title = "Linear autoencoder"
    metrics = ("test_mse", "test_mse_unclipped")

    mean: Tensor

    def __init__(self, image_shape: ImageShape, config: LinearConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        if config.latent_dim > pixels:
            raise ValueError(
                f"latent_dim is {config.latent_dim}, more than the {pixels} values of an image"
            )
        self.fit = config.fit
        self.encoder = nn.Linear(pixels, config.latent_dim, bias=False)
        self.decoder = nn.Linear(config.latent_dim, pixels, bias=False)
        self.register_buffer("mean", torch.zeros(pixels))

    def initialise_from_data(self, images: Tensor) -> None:
        """Set μ to the mean image and, for a fit in closed form, the matrices to those of PCA."""
        self.mean.copy_(torch.from_numpy(mean_row(images)))
        if self.fit == "closed_form":
            pca = fit_pca(images, self.latent_dim)
            # The right singular vectors of the centred images are the eigenvectors of the
            # covariance: 784 × 784 instead of 60,000 × 784 values.
            directions = torch.from_numpy(pca.directions[:, : self.latent_dim].copy())
            with torch.no_grad():
                self.encoder.weight.copy_(directions.T)
                self.decoder.weight.copy_(directions)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]``."""
        latents: Tensor = self.encoder(images.flatten(1) - self.mean)
        return latents

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]``, not clipped to [0, 1]."""
        rows: Tensor = self.decoder(latents) + self.mean
        return rows.view(-1, *self.image_shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]``, clipped to [0, 1]."""
        return self.decode_unclipped(latents).clamp(0.0, 1.0)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``."""
        return self.decode(self.encode(images))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared error before clipping: with clipping the optimum would not be PCA."""
        error = squared_error(self.decode_unclipped(self.encode(images)), images).mean()
        return {"loss": error, "squared_error": error}

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """Adam, or no optimiser for a fit in closed form."""
        return {} if self.fit == "closed_form" else super().optimizers(config)

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take a step of Adam, or only compute the losses for a fit in closed form."""
        if self.fit == "closed_form":
            with torch.no_grad():
                return self.losses(images, generator)
        return super().training_step(images, optimizers, generator, config)

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode and reconstruct."""
        return autoencoder_graphs(self)
