"""Variational autoencoder: a distribution of images given by latents with a prior.

Kingma & Welling 2013 (1312.6114): maximise the evidence lower bound
    ELBO(x) = E_q(z|x)[log p(x|z)] − KL(q(z|x) ‖ p(z)),
    q(z|x) = N(μ(x), diag(exp(log_variance(x)))),  p(z) = N(0, I),
with p(x|z) Gaussian or Bernoulli (``likelihoods.py``), the KL in closed form, and the expectation
as the mean over K samples z = μ + σε, ε ~ N(0, I), through which the gradient passes.

Burda et al. 2015 (1509.00519): the importance-weighted bound, with ``objective = "iwae"``,
    log 1/K Σ_k w_k,  w_k = p(x|z_k) p(z_k) / q(z_k|x),
is tighter, and equals log p(x) in the limit. Each sample costs a pass of the decoder, and early in
training more samples do not help: the first ``one_sample_steps`` steps use one, with the ELBO.

Two options counteract the collapse of latents to the prior: ``kl_warmup_steps``, over which the
weight of the KL rises from 0 to 1 (Bowman et al. 2015, 1511.06349; Sønderby et al. 2016,
1602.02282), and ``free_bits``, the minimum cost of the KL of a latent in nats (Kingma et al. 2016,
1606.04934). Both apply only in training: the best epoch is selected by the bound itself.

``network = "mlp"``, ``hidden = []``, ``output = "linear"`` is probabilistic PCA as a VAE (Dai et
al. 2018, 1706.05148; Lucas et al. 2019, 1911.02469), whose exact log p(x) is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import SAMPLE_METRICS, LatentModel, autoencoder_graphs
from latentserve_training.nn.binarisation import Binarisation, dynamic_bits, static_bits
from latentserve_training.nn.likelihoods import (
    MINIMUM_SIGMA,
    BernoulliLikelihood,
    GaussianLikelihood,
    Likelihood,
    SigmaMode,
)
from latentserve_training.nn.losses import (
    importance_weighted_bound,
    kl_by_latent,
    log_prior_over_posterior,
)
from latentserve_training.nn.networks import NetworkConfig, build_decoder, build_encoder
from latentserve_training.optim.optimizer import OptimizerConfig
from latentserve_training.pixels import ImageShape

# Keeps exp finite; it allows standard deviations of the posterior from e^-5 to e^5 of the prior's.
LOG_VARIANCE_LIMIT = 10.0


@dataclass(frozen=True, kw_only=True)
class VAEConfig(NetworkConfig):
    """The fields of the ``[model]`` table."""

    latent_dim: int = 20
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    sigma_mode: SigmaMode = "learned"  # of a Gaussian
    initial_sigma: float = 0.3  # in the units of [0, 1] pixels
    minimum_sigma: float = MINIMUM_SIGMA  # a higher value gives blurrier images, better samples
    output: Literal["sigmoid", "linear"] = "sigmoid"  # linear: only decode clips to [0, 1]
    binarisation: Binarisation = "none"  # of the images, for a Bernoulli; none: grey levels
    objective: Literal["elbo", "iwae"] = "elbo"
    samples: int = 1  # K: samples of the posterior per image
    one_sample_steps: int = 0  # first steps that use K = 1
    kl_warmup_steps: int = 0
    free_bits: float = 0.0  # nats per latent

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")
        if not self.minimum_sigma >= MINIMUM_SIGMA:
            raise ValueError(f"minimum_sigma must be {MINIMUM_SIGMA} or more")
        if not self.initial_sigma > self.minimum_sigma:
            raise ValueError(f"initial_sigma must be above minimum_sigma, {self.minimum_sigma}")
        if self.likelihood == "gaussian" and self.binarisation != "none":
            raise ValueError('binarisation needs likelihood = "bernoulli"')
        if self.likelihood == "bernoulli" and self.output == "linear":
            raise ValueError(
                'output = "linear" gives no probabilities: a Bernoulli likelihood needs "sigmoid"'
            )
        if self.samples < 1:
            raise ValueError("samples must be 1 or more")
        if self.objective == "iwae" and self.samples == 1:
            raise ValueError('objective = "iwae" with one sample is the ELBO: set samples above 1')
        if self.objective == "iwae" and self.free_bits > 0:
            raise ValueError('free_bits needs objective = "elbo": iwae has no KL term')
        if min(self.kl_warmup_steps, self.one_sample_steps) < 0:
            raise ValueError("kl_warmup_steps and one_sample_steps must be 0 or more")
        if not self.free_bits >= 0:
            raise ValueError("free_bits must be 0 or more")


class VAE(LatentModel):
    """x → q(z|x) → z → p(x|z)."""

    kind = "vae"
    prior = "standard_normal"
    metrics = (
        "test_elbo_nats",
        "test_log_likelihood_nats",
        "test_kl_nats",
        "test_active_units",
        "test_mse",
        *SAMPLE_METRICS,
    )
    plots = ("reconstructions", "samples", "latents", "interpolation")

    steps: Tensor
    binarisation_seed: Tensor

    def __init__(self, image_shape: ImageShape, config: VAEConfig) -> None:
        super().__init__(image_shape, config.latent_dim)
        self.config = config
        self.title = title_of(config)
        self.encoder = build_encoder(image_shape, config, 2 * config.latent_dim)
        self.decoder = build_decoder(image_shape, config, config.latent_dim)
        self.observation = build_likelihood(config)
        self.register_buffer("steps", torch.tensor(0))  # steps taken; determines the KL's weight
        # Depends on the seed of the run, like the initial weights.
        self.register_buffer("binarisation_seed", torch.randint(2**31, ()))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[n, c, h, w]`` to the posterior's mean and log-variance, each ``[n, d]``."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def reparameterize(
        self, mean: Tensor, log_variance: Tensor, samples: int, generator: torch.Generator
    ) -> Tensor:
        """Sample z = μ + σε, ``[samples, n, d]`` (Kingma & Welling 2013, section 2.4)."""
        noise = torch.randn(samples, *mean.shape, generator=generator, dtype=mean.dtype)
        return mean + torch.exp(0.5 * log_variance) * noise.to(mean.device)

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to the mean of p(x|z), ``[n, c, h, w]``."""
        return self.observation.mean(self.decoder(latents))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to the mean of p(x|z), ``[n, c, h, w]`` in [0, 1]."""
        images = self.decode_unclipped(latents)
        return images.clamp(0.0, 1.0) if self.config.output == "linear" else images

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean, which makes the reconstruction deterministic."""
        mean, _ = self.encode(images)
        return self.decode(mean)

    def observe(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images in [0, 1] as inputs of encoder and likelihood: bits if they are binarised."""
        if self.config.binarisation == "dynamic":
            return dynamic_bits(images, generator)
        if self.config.binarisation == "static":
            return static_bits(images, int(self.binarisation_seed))
        return images

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The negative bound and the terms of the ELBO, in nats per image; σ in units of pixels.

        In training mode the first steps use fewer samples, and KL warm-up and free bits apply;
        otherwise the loss is the negative bound itself.
        """
        images = self.observe(images, generator)
        mean, log_variance = self.encode(images)
        one_sample = self.training and int(self.steps) < self.config.one_sample_steps
        samples = 1 if one_sample else self.config.samples
        latents = self.reparameterize(mean, log_variance, samples, generator)
        outputs = self.decoder(latents.flatten(0, 1))
        log_likelihood, reported = self.observation.log_likelihood(outputs, images)
        kl = kl_by_latent(mean, log_variance)
        loss: Tensor
        weight = self.kl_weight() if self.training else 1.0
        if self.config.objective == "iwae" and samples > 1:
            log_ratio = log_prior_over_posterior(latents, mean, log_variance)
            loss = -importance_weighted_bound(log_likelihood + weight * log_ratio).mean()
        else:
            free_bits = self.config.free_bits if self.training else 0.0
            loss = weight * with_free_bits(kl, free_bits) - log_likelihood.mean()
        terms = {"log_likelihood": log_likelihood.mean(), "kl": kl.sum(1).mean()}
        return {"loss": loss, **terms, **reported}

    def kl_weight(self) -> float:
        """The weight of the KL in the next training step, in (0, 1]."""
        return min(1.0, (self.steps.item() + 1) / max(1, self.config.kl_warmup_steps))

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take a step and count it; the count is a buffer, so a resumed run continues it."""
        losses = super().training_step(images, optimizers, generator, config)
        self.observation.update_sigma(losses, int(self.steps))
        self.steps += 1
        return losses

    def likelihood(self) -> dict[str, Any]:
        """The family, and σ of a Gaussian."""
        return self.observation.describe()

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode (also serves Sample) and reconstruct."""
        return autoencoder_graphs(self, ("mean", "log_variance"))


def build_likelihood(config: VAEConfig) -> Likelihood:
    """The likelihood p(x|z) of a configuration."""
    if config.likelihood == "bernoulli":
        return BernoulliLikelihood()
    linear = config.output == "linear"
    return GaussianLikelihood(config.sigma_mode, config.initial_sigma, config.minimum_sigma, linear)


def title_of(config: VAEConfig) -> str:
    """The title of a model of this configuration."""
    linear = config.output == "linear" and config.network == "mlp" and not config.hidden
    name = "Linear variational" if linear else "Variational"
    if config.objective == "iwae":
        name = "Importance-weighted"
    if config.likelihood == "gaussian":
        return f"{name} autoencoder (Gaussian, {config.sigma_mode} σ)"
    pixels = {"none": "grey pixels"}.get(config.binarisation, f"{config.binarisation} bits")
    return f"{name} autoencoder (Bernoulli, {pixels})"


def with_free_bits(kl: Tensor, free_nats: float) -> Tensor:
    """Σ_j max(λ, mean over the batch of KL_j) for a KL ``[n, d]``, in nats per image.

    Kingma et al. 2016 (1606.04934): a KL of a latent below λ does not reduce the loss further.
    """
    return kl.mean(0).clamp(min=free_nats).sum()
