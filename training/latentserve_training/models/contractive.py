"""Contractive autoencoder: latents that are insensitive to small changes of the image.

Rifai et al. 2011 (ICML): minimise ‖x − x̂‖² + λ ‖J‖²_F with J = ∂h/∂x, the Jacobian of the latents.

One layer, h = sigmoid(W x + b), x̂ = sigmoid(Wᵀ h + c), section 3 of that paper:
    ‖J‖²_F = Σ_j (h_j (1 − h_j))² Σ_i W_ji²,
at the cost of the layer itself. Both directions share W; otherwise the encoder could scale the
latents down and the decoder scale them up again, which reduces the penalty without any effect.

Deep encoders, Hutchinson 1989 (Commun. Stat. 18), as in Hoffman et al. 2019 (1908.02729):
    ‖J‖²_F = E_v ‖vᵀ J‖², E[v vᵀ] = I,
one backward pass for each v. Its elements are ±1 (Rademacher): E[v vᵀ] = I holds, and the variance
of the estimate is lower than with Gaussian v.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import LatentModel, autoencoder_graphs
from latentserve_training.nn.blocks import ConvPair, TiedLayer
from latentserve_training.nn.losses import squared_error
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class ContractiveConfig:
    """The fields of the ``[model]`` table."""

    latent_dim: int = 128
    encoder: Literal["one_layer", "convolutional"] = "one_layer"
    channels: tuple[int, ...] = (24, 48)  # of the convolutional encoder; the decoder mirrors them
    penalty_weight: float = 0.1  # λ, for errors summed over pixels
    probes: int = 1  # vectors v per image and step, if the penalty is estimated

    def __post_init__(self) -> None:
        if min(self.latent_dim, self.probes) < 1:
            raise ValueError("latent_dim and probes must be 1 or more")
        if not self.penalty_weight >= 0:
            raise ValueError("penalty_weight must be 0 or more")

    def without_penalty(self) -> "ContractiveConfig":
        """The plain autoencoder of the same architecture: the baseline of this kind."""
        return replace(self, penalty_weight=0.0)


class ContractiveAutoencoder(LatentModel):
    """x → h → x̂; a latent is an activation in (0, 1)."""

    kind = "contractive"
    title = "Contractive autoencoder"
    metrics = ("test_mse", "test_jacobian", "test_mse_beside_plain")

    def __init__(self, image_shape: ImageShape, config: ContractiveConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        self.penalty_weight = config.penalty_weight
        self.probes = config.probes
        self.network: TiedLayer | ConvPair
        if config.encoder == "one_layer":
            self.network = TiedLayer(image_shape, config.latent_dim)
        else:
            self.network = ConvPair(image_shape, config.channels, config.latent_dim)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]`` in (0, 1)."""
        return torch.sigmoid(self.network.encode(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""
        return torch.sigmoid(self.network.decode(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``."""
        return self.decode(self.encode(images))

    def jacobian_norm(self, images: Tensor) -> Tensor:
        """‖J‖²_F, exact, ``[n]``; for deep encoders one backward pass per latent."""
        if isinstance(self.network, TiedLayer):
            return closed_form_norm(self.encode(images), self.network.weight)
        identity = torch.eye(self.latent_dim, device=images.device)
        return self._projected_norms(images, list(identity))

    def estimate_jacobian_norm(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Hutchinson's estimate of ‖J‖²_F from ``probes`` vectors for each image, ``[n]``."""
        shape = (self.probes, len(images), self.latent_dim)
        signs = 2.0 * torch.randint(0, 2, shape, generator=generator) - 1.0
        vectors = list(signs.to(images.device, images.dtype))
        return self._projected_norms(images, vectors) / self.probes

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared error, ‖J‖²_F and their weighted sum, per image."""
        latents = self.encode(images)
        error = squared_error(torch.sigmoid(self.network.decode(latents)), images).mean()
        if isinstance(self.network, TiedLayer):
            norm = closed_form_norm(latents, self.network.weight).mean()
        else:
            norm = self.estimate_jacobian_norm(images, generator).mean()
        return {
            "loss": error + self.penalty_weight * norm,
            "squared_error": error,
            "jacobian": norm,
        }

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode and reconstruct; the penalty is used only in training."""
        return autoencoder_graphs(self)

    def _projected_norms(self, images: Tensor, vectors: list[Tensor]) -> Tensor:
        """Σ_v ‖vᵀ J‖² for each image, ``[n]``; v is ``[n, d]``, or ``[d]`` for all images."""
        training = torch.is_grad_enabled()
        # Validation runs in inference mode, whose tensors have no gradients: hence the clones.
        with torch.inference_mode(False), torch.enable_grad():
            inputs = images.detach().clone().requires_grad_()
            latents = self.encode(inputs)
            total = torch.zeros(len(images), device=images.device, dtype=images.dtype)
            for vector in vectors:
                # Images do not depend on each other, so one pass computes the whole batch.
                projected = (latents * vector.clone()).sum()
                (gradient,) = torch.autograd.grad(
                    projected, inputs, retain_graph=True, create_graph=training
                )
                total = total + gradient.flatten(1).square().sum(1)
        return total


def closed_form_norm(latents: Tensor, weight: Tensor) -> Tensor:
    """‖∂h/∂x‖²_F of h = sigmoid(W x + b), ``[n]`` (Rifai et al. 2011, equation 7).

    Args:
        latents: h, ``[n, d]``.
        weight: W, ``[d, pixels]``.
    """
    slopes = latents * (1.0 - latents)
    return slopes.square() @ weight.square().sum(1)
