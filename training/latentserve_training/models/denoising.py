"""The denoising autoencoder: the same network, trained to undo Gaussian noise.

Vincent et al. 2008 (ICML): minimise ‖x − g(f(x̃))‖² with x̃ = x + σε, ε ~ N(0, I). The best answer
is the posterior mean E[x|x̃]; the best linear one is the Wiener filter, hence the baseline.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.models.base import Graph, ImageShape


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(AutoencoderConfig):
    """The fields of the ``[model]`` table."""

    noise_sigma: float = 0.5  # in the units of [0, 1] pixels
    clipped_share: float = 0.5  # of the training images: noisy pixels clipped to [0, 1]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise_sigma > 0:
            raise ValueError("noise_sigma must be above 0")
        if not 0 <= self.clipped_share <= 1:
            raise ValueError("clipped_share must lie in [0, 1]")


class DenoisingAutoencoder(Autoencoder):
    """x̃ → x̂; the corruption belongs to training and is in no graph."""

    kind = "denoising"
    title = "Denoising convolutional autoencoder"
    metrics = ("test_psnr_db", "test_psnr_clipped_input_db")
    figures = ("denoised",)

    def __init__(self, image_shape: ImageShape, config: DenoisingConfig) -> None:
        super().__init__(image_shape, config)
        self.noise_sigma = config.noise_sigma
        self.clipped_share = config.clipped_share

    def corrupt(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of ``noise_sigma`` to images ``[n, c, h, w]``; the result leaves [0, 1]."""
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        return images + self.noise_sigma * noise.to(images.device)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss against the clean images."""
        noisy = self.corrupt(images, generator)
        # Floats arrive as they are; PNG and uint8 images can hold nothing outside [0, 1]. The
        # model cannot be told which it gets, so it learns both.
        chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < self.clipped_share
        noisy = torch.where(chosen.to(images.device), noisy.clamp(0.0, 1.0), noisy)
        return self.reconstruction_losses(source=noisy, target=images)

    def golden_input(
        self, operation: str, images: Tensor, latents: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Noisy images to denoise."""
        if operation == "denoise":
            return self.corrupt(images, generator)
        return super().golden_input(operation, images, latents, generator)

    def graphs(self) -> tuple[Graph, ...]:
        """The autoencoder's; to denoise is to reconstruct, so one graph answers both."""
        encode, decode, reconstruct = super().graphs()
        return encode, decode, replace(reconstruct, operations=("reconstruct", "denoise"))
