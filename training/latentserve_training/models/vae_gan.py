"""VAE-GAN: a variational autoencoder whose reconstruction error uses features of a discriminator.

Larsen et al. 2016 (1512.09300). Measured by pixels, a digit shifted by one pixel has a large error
and a blurred digit a small one; features of a discriminator are closer to perceived similarity.
Algorithm 1 of the paper, with Dis_l the features of layer l:

    Z = Enc(X),  L_prior = KL(q(Z|X) ‖ N(0, I)),  X̃ = Dec(Z)
    L_llike = −E[log p(Dis_l(X)|Z)],  p(Dis_l(X)|Z) = N(Dis_l(X̃), σ²I)
    Z_p ~ N(0, I),  X_p = Dec(Z_p)
    L_GAN = log Dis(X) + log(1 − Dis(X̃)) + log(1 − Dis(X_p))
    Enc ← −∇ (L_prior + L_llike)
    Dec ← −∇ (γ L_llike − L_GAN)
    Dis ← −∇ L_GAN

Signs. Every update is a descent step, so the last line, as printed, would make Dis *decrease*
log Dis(X) + log(1 − Dis(X̃)) + …, which is the wrong direction, and likewise for the decoder, which
increases the same sum. The algorithm is correct if L_GAN is the negative of the printed sum, the
cross-entropy −log Dis(X) − log(1 − Dis(X̃)) − log(1 − Dis(X_p)), as in the authors' code. That is
``Terms.gan`` here, and the three updates are then as printed. Also as printed: L_GAN has no
gradient for Enc, L_llike has none for Dis, and γ weights L_llike for Dec alone.

Additions, which can be turned off: the decoder may maximise log Dis of its images instead of −L_GAN
(``loss``, see ``adversarial_losses.py``); X and X̃ are also compared by their pixels, at first or
always; R₁ or spectral normalisation; the equilibrium rule of the published code.

Scaling: X has the same weight as X̃ and X_p together; otherwise Dis would tend to classify all
images as generated. σ is given in standard deviations of the features (``feature_sigma``), and the
sum over features is scaled to one term per pixel, because scale and number of features are
arbitrary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentserve_training import distributed
from latentserve_training.errors import NonFiniteLossError
from latentserve_training.graphs.spec import Graph
from latentserve_training.models.adversarial import (
    AdversarialConfig,
    AdversarialModel,
    AveragedWeights,
    detached,
)
from latentserve_training.models.base import SAMPLE_METRICS, VALIDATION_BATCH, autoencoder_graphs
from latentserve_training.models.vae import LOG_VARIANCE_LIMIT, VAEConfig
from latentserve_training.nn.adversarial_losses import (
    equilibrium_rule,
    fake_cost,
    generator_loss,
    real_cost,
)
from latentserve_training.nn.losses import kl_to_standard_normal, squared_error
from latentserve_training.nn.networks import build_decoder, build_encoder
from latentserve_training.optim.optimizer import OptimizerConfig, take_step
from latentserve_training.pixels import ImageShape, to_float

VARIANCE_FLOOR = 1e-6  # of features, some of which are constant at first


@dataclass(frozen=True, kw_only=True)
class VAEGANConfig(AdversarialConfig):
    """The fields of the ``[model]`` table."""

    latent_dim: int = 16
    feature_layer: int = 1  # l: the stage of the discriminator whose features are compared
    feature_sigma: float = 0.3  # σ of p(Dis_l(x)|z), in standard deviations of the features
    gamma: float = (
        0.01  # γ: weight of L_llike, in nats, relative to L_GAN in the decoder's gradient
    )
    pixel_share: float = 0.0  # final share of L_llike that compares pixels instead of features
    pixel_steps: int = 1000  # steps over which that share falls from 1
    equilibrium_margin: float = 0.0  # of the equilibrium rule (published: 0.35); 0 turns it off

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")
        if not 1 <= self.feature_layer <= self.discriminator_stages:
            raise ValueError(
                f"feature_layer must lie between 1 and {self.discriminator_stages}, the number of "
                "the discriminator's stages"
            )
        if not self.feature_sigma > 0:
            raise ValueError("feature_sigma must be above 0")
        if not self.gamma >= 0:
            raise ValueError("gamma must be 0 or more")
        if not 0 <= self.pixel_share <= 1:
            raise ValueError("pixel_share must lie in [0, 1]")
        if self.pixel_steps < 0:
            raise ValueError("pixel_steps must be 0 or more")
        if not self.equilibrium_margin >= 0:
            raise ValueError("equilibrium_margin must be 0 (off) or more")

    def plain_vae(self) -> VAEConfig:
        """The VAE with the same encoder and decoder: the baseline of this kind."""
        return VAEConfig(
            latent_dim=self.latent_dim,
            network=self.network,
            channels=self.channels,
            residual_blocks=self.residual_blocks,
            hidden=self.hidden,
        )


@dataclass(frozen=True)
class Terms:
    """The terms of Algorithm 1 for one batch: differentiable scalars in nats per image."""

    prior: Tensor  # L_prior
    likelihood: Tensor  # L_llike
    real: Tensor  # −log Dis(X)
    fake: Tensor  # the mean of −log(1 − Dis(X̃)) and −log(1 − Dis(X_p))
    generator_cost: Tensor  # adversarial loss of Dec: −L_GAN, or −log Dis of its images
    squared_error: Tensor  # of the pixels, summed; only logged

    @property
    def gan(self) -> Tensor:
        """L_GAN, the cross-entropy that Dis minimises; X has the weight of X̃ and X_p together."""
        return self.real + self.fake

    def as_losses(self) -> dict[str, Tensor]:
        """The losses to log."""
        return {
            "discriminator_loss": self.gan,
            "generator_loss": self.generator_cost,
            "kl": self.prior,
            "feature_error": self.likelihood,
            "squared_error": self.squared_error,
        }


class VAEGAN(AdversarialModel):
    """x → q(z|x) → z → x̃, and z ~ N(0, I) → x_p, both classified by Dis."""

    kind = "vae-gan"
    title = "VAE-GAN"
    metrics = (
        "test_mse",
        *SAMPLE_METRICS,
        "test_reconstruction_frechet",
        "test_frechet_beside_vae",
        "test_mse_beside_vae",
    )
    plots = ("reconstructions", "samples", "latents", "interpolation")

    def __init__(self, image_shape: ImageShape, config: VAEGANConfig) -> None:
        super().__init__(image_shape, config.latent_dim, config)
        self.config = config
        self.encoder = build_encoder(image_shape, config, 2 * config.latent_dim)
        self.decoder = build_decoder(image_shape, config, config.latent_dim)
        self.averaged_encoder = AveragedWeights(self.encoder, config.averaging_decay)
        self.averaged_decoder = AveragedWeights(self.decoder, config.averaging_decay)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[n, c, h, w]`` to the posterior's mean and log-variance, each ``[n, d]``."""
        return _split(self.averaged_encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1]."""
        return torch.sigmoid(self.averaged_decoder(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior's mean, which makes the reconstruction deterministic."""
        mean, _ = self.encode(images)
        return self.decode(mean)

    def terms(self, images: Tensor, generator: torch.Generator) -> Terms:
        """All terms of Algorithm 1, computed by the networks in training."""
        mean, log_variance = _split(self.encoder(images))
        noise = torch.randn(2, *mean.shape, generator=generator).to(images)
        latents = mean + torch.exp(0.5 * log_variance) * noise[0]
        reconstructions = torch.sigmoid(self.decoder(latents))
        samples = torch.sigmoid(self.decoder(noise[1]))
        layer = self.config.feature_layer
        features, real = self.discriminator(images, layer)
        rebuilt_features, rebuilt = self.discriminator(reconstructions, layer)
        sampled = self.discriminator_logits(samples)
        share = self.pixel_share()
        error = (1.0 - share) * relative_error(rebuilt_features, features)
        if share:
            error = error + share * relative_error(reconstructions.flatten(1), images.flatten(1))
        pixels = images[0].numel()
        return Terms(
            prior=kl_to_standard_normal(mean, log_variance).mean(),
            likelihood=0.5 * pixels * error / self.config.feature_sigma**2,
            real=real_cost(real),
            fake=0.5 * (fake_cost(rebuilt) + fake_cost(sampled)),
            generator_cost=0.5
            * (generator_loss(rebuilt, self.objective) + generator_loss(sampled, self.objective)),
            squared_error=squared_error(reconstructions, images).mean(),
        )

    def pixel_share(self) -> float:
        """The share of L_llike that compares pixels in this step; it falls linearly from 1."""
        share, steps = self.config.pixel_share, self.config.pixel_steps
        remaining = max(0.0, 1.0 - self.steps.item() / steps) if steps else 0.0
        return share + remaining * (1.0 - share)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms; each network has a separate loss, so there is no single ``"loss"``."""
        return self.terms(images, generator).as_losses()

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """One optimiser per network."""
        rate = config.learning_rate
        return {
            "encoder": self.adam(self.encoder, rate, config),
            "decoder": self.adam(self.decoder, rate, config),
            "discriminator": self.adam(
                self.discriminator, self.discriminator_learning_rate, config
            ),
        }

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take one step of Algorithm 1: compute all gradients, then step each network.

        Raises:
            NonFiniteLossError: If a term or a gradient is NaN or infinite; no weight has changed.
        """
        terms = self.terms(images, generator)
        self.route_gradients(terms, self.r1_penalty(images))
        non_finite_term = self.non_finite_term(terms)
        if not distributed.true_in_all_processes(not non_finite_term):
            raise NonFiniteLossError(non_finite_term or "in another process, a loss is not finite")
        train_discriminator, train_decoder = self.networks_to_update(terms)
        take_step(optimizers["encoder"], config.max_gradient_norm)
        if train_decoder:
            take_step(optimizers["decoder"], config.max_gradient_norm)
        if train_discriminator:
            take_step(optimizers["discriminator"], config.max_gradient_norm)
        self.averaged_encoder.update_parameters(self.encoder)
        self.averaged_decoder.update_parameters(self.decoder)
        self.steps += 1
        return detached(terms.as_losses())

    def route_gradients(self, terms: Terms, penalty: Tensor) -> None:
        """Set the gradients of each network to those of its terms in Algorithm 1."""
        _set_gradients(self.encoder, terms.prior + terms.likelihood)
        _set_gradients(self.decoder, self.config.gamma * terms.likelihood + terms.generator_cost)
        _set_gradients(self.discriminator, terms.gan + penalty)

    def non_finite_term(self, terms: Terms) -> str:
        """Describe the first loss or gradient that is NaN or infinite; "" if all are finite."""
        for name, value in terms.as_losses().items():
            if not bool(torch.isfinite(value)):
                return f"the loss is {value.item()} ({name})"
        for name in ("encoder", "decoder", "discriminator"):
            gradients = [each.grad for each in getattr(self, name).parameters()]
            if not bool(torch.isfinite(nn.utils.get_total_norm(gradients))):
                return f"the gradient of the {name} is not finite"
        return ""

    def networks_to_update(self, terms: Terms) -> tuple[bool, bool]:
        """Whether to update the discriminator and the decoder in this step."""
        if not self.config.equilibrium_margin:
            return True, True
        real, fake = distributed.means_over_batch([terms.real.item(), terms.fake.item()])
        return equilibrium_rule(real, fake, self.config.equilibrium_margin)

    def validation_losses(self, images: Tensor, seed: int) -> dict[str, float]:
        """Compare samples with uint8 images; add the squared error and the KL per image."""
        sums = {"squared_error": 0.0, "kl": 0.0}
        for batch in torch.split(images, VALIDATION_BATCH):
            inputs = to_float(batch).to(next(self.parameters()).device)
            mean, log_variance = self.encode(inputs)
            sums["squared_error"] += float(squared_error(self.decode(mean), inputs).sum())
            sums["kl"] += float(kl_to_standard_normal(mean, log_variance).sum())
        means = {name: value / len(images) for name, value in sums.items()}
        return super().validation_losses(images, seed) | means

    def graphs(self) -> tuple[Graph, ...]:
        """The graphs of encode, decode (also serves Sample) and reconstruct."""
        return autoencoder_graphs(self, ("mean", "log_variance"))


def relative_error(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean of (target − predicted)² over the mean variance of the columns; ``[n, f]`` each.

    1 for the best constant prediction. The variance is that of the batch and has no gradient.
    """
    variance = target.detach().var(0, correction=0).mean() + VARIANCE_FLOOR
    return (target - predicted).square().mean() / variance


def _split(encoded: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = encoded.chunk(2, dim=1)
    return mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


def _set_gradients(network: nn.Module, loss: Tensor) -> None:
    weights = list(network.parameters())
    gradients = torch.autograd.grad(loss, weights, retain_graph=True)
    for each, gradient in zip(weights, gradients, strict=True):
        each.grad = gradient
