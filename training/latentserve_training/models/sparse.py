"""Sparse autoencoder: many latents, of which few are active for any image.

One layer with the same weights in both directions, h = a(W x + b), and either x̂ = sigmoid(Wᵀ h + c)
or, as in Makhzani & Frey, x̂ = Wᵀ h + c with the mean image subtracted from x before and added to x̂
after. The second form without a sigmoid gives latents of a higher probe accuracy. Sparsity has
three variants:

``top_k``, Makhzani & Frey 2013 (1312.5663): a keeps the k largest of W x + b and zeroes the rest;
    minimise ‖x − x̂‖². k decreases over the first steps (section 2.3 of the paper); otherwise units
    that are not among the k largest at first are never trained and stay dead. A classifier needs
    more units than the decoder, α k with α from 1 to 3 (section 2.2): ``probe_active``.
``l1``, Olshausen & Field 1996 (Nature 381): a = relu; minimise ‖x − x̂‖² + λ Σ_j |h_j|. The rows of
    W are divided by their length: otherwise a small h with a large W would avoid the penalty.
``kl``, Ng 2011 (CS294A lecture notes), section 3: a = sigmoid; minimise
    ‖x − x̂‖² + λ Σ_j KL(ρ ‖ ρ̂_j), KL(ρ ‖ ρ̂) = ρ log(ρ / ρ̂) + (1 − ρ) log((1 − ρ) / (1 − ρ̂)),
    where ρ̂_j is the mean of h_j over the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import LatentModel, autoencoder_graphs
from latentserve_training.nn.blocks import TiedLayer
from latentserve_training.nn.losses import squared_error
from latentserve_training.optim.optimizer import OptimizerConfig
from latentserve_training.pixels import ImageShape

MEAN_LIMIT = 1e-6  # ρ̂ stays this far from 0 and 1, where the divergence is infinite


@dataclass(frozen=True, kw_only=True)
class SparseConfig:
    """The fields of the ``[model]`` table."""

    latent_dim: int = 192
    sparsity: Literal["top_k", "l1", "kl"] = "top_k"
    output: Literal["sigmoid", "linear"] = "sigmoid"  # linear: decode clips to [0, 1]
    active: int = 25  # k: active units per image, with top_k
    probe_active: int = 0  # α k: active units for the linear probe, with top_k; 0 for k
    anneal_from: int = 0  # k at the first step, with top_k; 0 for all units
    anneal_steps: int = 2000  # over which k falls to active, with top_k
    penalty_weight: float = 0.1  # λ, with l1 and kl, for errors summed over pixels
    target_activity: float = 0.05  # ρ, with kl

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")
        if not 1 <= self.active <= self.latent_dim and self.sparsity == "top_k":
            raise ValueError(f"active must lie between 1 and latent_dim, {self.latent_dim}")
        if self.anneal_from and not self.active <= self.anneal_from <= self.latent_dim:
            raise ValueError(
                f"anneal_from must be 0 (all units) or lie between active and {self.latent_dim}"
            )
        if not 0 <= self.probe_active <= self.latent_dim:
            raise ValueError(f"probe_active must lie between 0 and latent_dim, {self.latent_dim}")
        if self.anneal_steps < 0:
            raise ValueError("anneal_steps must be 0 or more")
        if not self.penalty_weight >= 0:
            raise ValueError("penalty_weight must be 0 or more")
        if not 0 < self.target_activity < 1:
            raise ValueError("target_activity must lie between 0 and 1")


class SparseAutoencoder(LatentModel):
    """x → h → x̂; a latent is the activation of a unit."""

    kind = "sparse"
    title = "Sparse autoencoder"
    sampler_unsupported_reason = (
        "most of its latents are exactly zero for any image, which a Gaussian mixture cannot model"
    )
    metrics = ("test_mse", "test_probe_accuracy", "test_share_of_zeros", "test_dead_units")

    steps: Tensor
    mean: Tensor

    def __init__(self, image_shape: ImageShape, config: SparseConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        self.config = config
        self.layer = TiedLayer(image_shape, config.latent_dim, unit_rows=config.sparsity == "l1")
        self.register_buffer("steps", torch.tensor(0))  # steps taken; determines k
        self.register_buffer("mean", torch.zeros(image_shape))  # mean image; 0 with a sigmoid

    @property
    def nonzero_latents_per_image(self) -> int:
        """With top_k, k; the indices of the active units are not counted."""
        top_k = self.config.sparsity == "top_k"
        return self.config.active if top_k else self.latent_dim

    def initialise_from_data(self, images: Tensor) -> None:
        """Set the mean image, if the output is linear."""
        if self.config.output == "linear":
            self.mean.copy_(images.double().mean(0) / 255.0)

    def activate(self, inputs: Tensor, active: int) -> Tensor:
        """The activation function of W x + b, both ``[n, d]``; ``active`` is k, with top_k."""
        if self.config.sparsity == "l1":
            return torch.relu(inputs)
        if self.config.sparsity == "kl":
            return torch.sigmoid(inputs)
        return keep_largest(inputs, active)

    def encode_active(self, images: Tensor, active: int) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]``, of which ``active`` are kept by top_k."""
        centred = images - self.mean if self.config.output == "linear" else images
        return self.activate(self.layer.encode(centred), active)

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[n, c, h, w]`` to latents ``[n, d]``."""
        return self.encode_active(images, self.config.active)

    def probe_features(self, images: Tensor) -> Tensor:
        """Features for the linear probe, ``[n, d]``: latents with probe_active active units."""
        return self.encode_active(images, self.config.probe_active or self.config.active)

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]``; a linear output is not clipped."""
        outputs = self.layer.decode(latents)
        return outputs + self.mean if self.config.output == "linear" else torch.sigmoid(outputs)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""
        images = self.decode_raw(latents)
        return images.clamp(0.0, 1.0) if self.config.output == "linear" else images

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images to their reconstructions, both ``[n, c, h, w]``."""
        return self.decode(self.encode(images))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The squared error per image and, with l1 and kl, the penalty."""
        active = self.annealed_active() if self.training else self.config.active
        latents = self.encode_active(images, active)
        error = squared_error(self.decode_raw(latents), images).mean()
        if self.config.sparsity == "top_k":
            return {"loss": error, "squared_error": error}
        if self.config.sparsity == "l1":
            penalty = latents.abs().sum(1).mean()
        else:
            penalty = activity_divergence(self.config.target_activity, latents.mean(0))
        loss = error + self.config.penalty_weight * penalty
        return {"loss": loss, "squared_error": error, "penalty": penalty}

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take a step and count it; the count is a buffer, so a resumed run continues it."""
        losses = super().training_step(images, optimizers, generator, config)
        self.steps += 1
        return losses

    def annealed_active(self) -> int:
        """Active units at this training step, which decrease linearly."""
        remaining = max(0.0, 1.0 - self.steps.item() / max(1, self.config.anneal_steps))
        first = self.config.anneal_from or self.latent_dim
        return round(self.config.active + remaining * (first - self.config.active))

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode and reconstruct, in which k is a constant."""
        return autoencoder_graphs(self)


def keep_largest(inputs: Tensor, count: int) -> Tensor:
    """Zero all but the ``count`` largest values of each row of ``[n, d]``."""
    values, units = torch.topk(inputs, count, dim=1)
    return torch.zeros_like(inputs).scatter(1, units, values)


def activity_divergence(target: float, mean_activity: Tensor) -> Tensor:
    """Σ_j KL(ρ ‖ ρ̂_j) of Bernoulli distributions, in nats; ``mean_activity`` is ρ̂, ``[d]``."""
    mean = mean_activity.clamp(MEAN_LIMIT, 1.0 - MEAN_LIMIT)
    rho = torch.full_like(mean, target)
    active = functional.kl_div(mean.log(), rho, reduction="sum")
    inactive = functional.kl_div((1.0 - mean).log(), 1.0 - rho, reduction="sum")
    return active + inactive
