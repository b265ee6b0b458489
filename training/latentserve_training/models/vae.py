"""The Gaussian variational autoencoder with a Gaussian decoder and one learned σ.

Kingma & Welling 2013 (1312.6114): maximise the evidence lower bound
    ELBO(x) = E_q(z|x)[log p(x|z)] − KL(q(z|x) ‖ p(z)),
    q(z|x) = N(μ(x), diag(exp(log_variance(x)))),  p(z) = N(0, I),  p(x|z) = N(g(z), σ²I).
Rybkin et al. 2020 (2006.13202): σ is learned with the weights. A fixed σ is a hidden weight on the
KL term; with σ = 1 and pixels in [0, 1] most latents collapse onto the prior.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentserve_training.losses import gaussian_log_likelihood, kl_to_standard_normal
from latentserve_training.models.base import Graph, GraphModule, ImageShape, LatentModel
from latentserve_training.models.blocks import ConvDecoder, ConvEncoder

# exp stays finite, and a posterior as narrow as e^-5 or as wide as e^5 σ of the prior is enough.
LOG_VARIANCE_LIMIT = 10.0
MINIMUM_SIGMA = 0.0025  # below a pixel level of 256: a smaller σ would only fit the rounding


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The fields of the ``[model]`` table."""

    latent_dim: int = 16
    channels: tuple[int, ...] = (24, 48)  # width of each encoder stage; the decoder mirrors them
    initial_sigma: float = 0.3  # of the decoder, in the units of [0, 1] pixels

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")
        if not self.initial_sigma > MINIMUM_SIGMA:
            raise ValueError(f"initial_sigma must be above {MINIMUM_SIGMA}")


class VAE(LatentModel):
    """x → q(z|x) → z → p(x|z)."""

    kind = "vae"
    title = "Gaussian variational autoencoder (learned σ)"
    prior = "standard_normal"
    metrics = ("test_elbo_nats", "test_mse")
    figures = ("reconstructions", "samples", "latents", "interpolation")

    def __init__(self, image_shape: ImageShape, config: VAEConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        self.encoder = ConvEncoder(image_shape, config.channels, 2 * config.latent_dim)
        self.decoder = ConvDecoder(image_shape, config.channels, config.latent_dim)
        # The inverse of the softplus below, so that training starts at initial_sigma exactly.
        ratio = config.initial_sigma / MINIMUM_SIGMA
        self.log_sigma_above_minimum = nn.Parameter(torch.tensor(math.log(ratio - 1.0)))

    @property
    def log_sigma(self) -> Tensor:
        """Scalar log σ, kept above its minimum by a clamp that lets the gradient through."""
        return math.log(MINIMUM_SIGMA) + nn.functional.softplus(self.log_sigma_above_minimum)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[n, c, h, w]`` to the posterior's mean and log-variance, each ``[n, d]``."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def reparameterize(
        self, mean: Tensor, log_variance: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Draw z = μ + σε, ε ~ N(0, I), ``[n, d]`` (Kingma & Welling 2013, section 2.4)."""
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + torch.exp(0.5 * log_variance) * noise.to(mean.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to the mean of p(x|z), ``[n, c, h, w]`` in [0, 1]."""
        return torch.sigmoid(self.decoder(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean: no randomness, the same answer every time."""
        mean, _ = self.encode(images)
        return self.decode(mean)

    def elbo_terms(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One-sample estimate of E[log p(x|z)], and the exact KL; ELBO = first − second.

        Returns:
            Two tensors ``[n]``, in nats per image.
        """
        mean, log_variance = self.encode(images)
        decoded = self.decode(self.reparameterize(mean, log_variance, generator))
        log_likelihood = gaussian_log_likelihood(decoded, self.log_sigma, images)
        return log_likelihood, kl_to_standard_normal(mean, log_variance)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """−ELBO and its two terms, in nats per image; σ in the pixels' units."""
        log_likelihood, kl = self.elbo_terms(images, generator)
        return {
            "loss": (kl - log_likelihood).mean(),
            "log_likelihood": log_likelihood.mean(),
            "kl": kl.mean(),
            "sigma": self.log_sigma.exp(),
        }

    def likelihood(self) -> dict[str, Any]:
        """Gaussian, with the σ that was learned."""
        return {"family": "gaussian", "sigma": float(self.log_sigma.detach().exp())}

    def graphs(self) -> tuple[Graph, ...]:
        """Encode, decode (which also serves Sample: z is the server's to draw) and reconstruct."""
        return (
            Graph(
                "encode.onnx",
                GraphModule(self, "encode"),
                "images",
                ("mean", "log_variance"),
                ("encode",),
            ),
            Graph(
                "decode.onnx",
                GraphModule(self, "decode"),
                "latents",
                ("images",),
                ("decode", "sample"),
            ),
            Graph(
                "reconstruct.onnx",
                GraphModule(self, "reconstruct"),
                "images",
                ("reconstruction",),
                ("reconstruct",),
            ),
        )
