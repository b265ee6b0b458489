"""The linear autoencoder: what a bottleneck is worth without any non-linearity.

    z = E (x − μ),  x̂ = D z + μ,  minimise Σ ‖x − x̂‖².

Bourlard & Kamp 1988 (Biol. Cybern. 59), Baldi & Hornik 1989 (Neural Networks 2): every minimum
projects onto the ``latent_dim`` leading principal directions, and all other stationary points are
saddles. So Adam must end where the singular value decomposition begins; ``fit`` chooses between
the two. Adam finds the subspace only, D E = V Vᵀ, with any invertible mixing of the latents; the
closed form gives E = Vᵀ and D = V, latents uncorrelated and sorted by variance.
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
    fit: Literal["adam", "closed_form"] = "adam"  # closed_form needs one epoch, to be measured

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
            raise ValueError(f"latent_dim is {config.latent_dim}: more than {pixels} pixels")
        self.fit = config.fit
        self.encoder = nn.Linear(pixels, config.latent_dim, bias=False)
        self.decoder = nn.Linear(config.latent_dim, pixels, bias=False)
        self.register_buffer("mean", torch.zeros(pixels))

    def initialise_from_data(self, images: Tensor) -> None:
        """Set μ to the mean image, and the matrices where they are fitted in closed form."""
        self.mean.copy_(torch.from_numpy(mean_row(images)))
        if self.fit == "closed_form":
            pca = fit_pca(images, self.latent_dim)
            # The right singular vectors of the centred images, as eigenvectors of the covariance:
            # 784 × 784 instead of 60,000 × 784.
            directions = torch.from_numpy(pca.directions[:, : self.latent_dim].copy())
            with torch.no_grad():
                self.encoder.weight.copy_(directions.T)
                self.decoder.weight.copy_(directions)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]``."""
        latents: Tensor = self.encoder(images.flatten(1) - self.mean)
        return latents

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` that may leave [0, 1]."""
        rows: Tensor = self.decoder(latents) + self.mean
        return rows.view(-1, *self.image_shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]``, clipped to [0, 1]: images are served."""
        return self.decode_unclipped(latents).clamp(0.0, 1.0)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``."""
        return self.decode(self.encode(images))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared error before clipping, which would end the equality with PCA."""
        error = squared_error(self.decode_unclipped(self.encode(images)), images).mean()
        return {"loss": error, "squared_error": error}

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """Adam, or nothing at all where the weights are known."""
        return {} if self.fit == "closed_form" else super().optimizers(config)

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """A step of Adam, or only the losses where the weights are known."""
        if self.fit == "closed_form":
            with torch.no_grad():
                return self.losses(images, generator)
        return super().training_step(images, optimizers, generator, config)

    def graphs(self) -> tuple[Graph, ...]:
        """Encode, decode and reconstruct."""
        return autoencoder_graphs(self)
