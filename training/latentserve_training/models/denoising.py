"""Denoising autoencoder: an autoencoder that is trained to remove a corruption of its input.

Vincent et al. 2008 (ICML) and 2010 (JMLR 11): minimise ‖x − g(f(x̃))‖², where x̃ is one of
    gaussian         x + σε, ε ~ N(0, I)
    masking          x with a share ν of its pixels set to 0
    salt_and_pepper  x with a share ν of its pixels set to 0 or 1, with equal probability
The optimal output is the posterior mean E[x|x̃]. For Gaussian noise the optimal linear filter is the
Wiener filter, which is the baseline. With ``level_range`` the σ or ν of every training image is
sampled: one model then denoises all levels, without the level as an input.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from latentserve_training.graphs.spec import Graph
from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(AutoencoderConfig):
    """The fields of the ``[model]`` table."""

    corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "gaussian"
    noise_sigma: float = 0.5  # σ, in the units of [0, 1] pixels; with gaussian
    corrupted_share: float = 0.25  # ν, of the pixels; with masking and salt_and_pepper
    # Lowest and highest σ or ν for training, sampled uniformly; empty for the fixed level above, at
    # which the model is evaluated in any case.
    level_range: tuple[float, ...] = ()
    measured_levels: tuple[float, ...] = ()  # additional σ or ν for evaluation, one metric each
    clipped_share: float = 0.5  # share of training images whose noisy pixels are clipped to [0, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise_sigma > 0:
            raise ValueError("noise_sigma must be above 0")
        if not 0 < self.corrupted_share <= 1:
            raise ValueError("corrupted_share must lie between 0 and 1")
        if not 0 <= self.clipped_share <= 1:
            raise ValueError("clipped_share must lie in [0, 1]")
        if len(set(self.measured_levels)) < len(self.measured_levels):
            raise ValueError("measured_levels must list each level once")
        if self.measured_levels and not min(self.measured_levels) > 0:
            raise ValueError("measured_levels must be above 0")
        if self.corruption != "gaussian" and max(self.measured_levels, default=0) > 1:
            raise ValueError("measured_levels are shares of the pixels and must be at most 1")
        if self.level_range:
            if len(self.level_range) != 2 or not 0 <= self.level_range[0] < self.level_range[1]:
                raise ValueError("level_range must be empty or [lowest, highest], 0 or more")
            if self.corruption != "gaussian" and self.level_range[1] > 1:
                raise ValueError("level_range holds shares of the pixels and must be at most 1")


class DenoisingAutoencoder(Autoencoder):
    """x̃ → x̂; the corruption is used in training and evaluation, not in the graphs."""

    kind = "denoising"
    title = "Denoising autoencoder"
    metrics: tuple[str, ...] = ("test_psnr_db", "test_psnr_clipped_input_db")
    plots = ("denoised", "latents", "interpolation")

    def __init__(self, image_shape: ImageShape, config: DenoisingConfig) -> None:
        super().__init__(image_shape, config)
        self.corruption = config.corruption
        self.noise_sigma = config.noise_sigma
        self.level_range = config.level_range
        self.clipped_share = config.clipped_share
        gaussian = config.corruption == "gaussian"
        self.level = config.noise_sigma if gaussian else config.corrupted_share
        self.measured_levels = config.measured_levels
        for name in DenoisingAutoencoder.metrics:
            self.metrics += tuple(f"{name}_at_{level:g}" for level in config.measured_levels)

    def corrupt(
        self, images: Tensor, generator: torch.Generator, level: float | Tensor | None = None
    ) -> Tensor:
        """Corrupt images ``[n, c, h, w]``; Gaussian noise is not clipped to [0, 1].

        Args:
            images: Clean images in [0, 1].
            generator: Source of the noise.
            level: σ or ν, for all images or ``[n, 1, 1, 1]``; None for the configured one.
        """
        level = self.level if level is None else level
        if self.corruption == "gaussian":
            noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
            return images + level * noise.to(images.device)
        chance = torch.rand(images.shape, generator=generator, dtype=images.dtype)
        chance = chance.to(images.device)
        corrupted = torch.where(chance < level, 0.0, images)
        if self.corruption == "salt_and_pepper":
            corrupted = torch.where(chance < 0.5 * level, 1.0, corrupted)
        return corrupted

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss against the clean images."""
        level: float | Tensor = self.level
        if self.level_range:
            lowest, highest = self.level_range
            uniform = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)
            level = lowest + (highest - lowest) * uniform
        noisy = self.corrupt(images, generator, level)
        if self.corruption != "gaussian":
            return self.reconstruction_losses(source=noisy, target=images)
        # Inputs in float32 may leave [0, 1], those in PNG or uint8 cannot. The format is not an
        # input of the model, so it is trained on both.
        chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < self.clipped_share
        noisy = torch.where(chosen.to(images.device), noisy.clamp(0.0, 1.0), noisy)
        return self.reconstruction_losses(source=noisy, target=images)

    def golden_input(
        self, operation: str, images: Tensor, latents: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Noisy images for denoise; the inputs of the autoencoder for the other operations."""
        if operation == "denoise":
            return self.corrupt(images, generator)
        return super().golden_input(operation, images, latents, generator)

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of the autoencoder; that of reconstruct also serves denoise."""
        encode, decode, reconstruct = super().graphs()
        return encode, decode, replace(reconstruct, operations=("reconstruct", "denoise"))
