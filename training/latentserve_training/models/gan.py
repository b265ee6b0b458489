"""Generative adversarial network: a generator trained against a discriminator.

Goodfellow et al. 2014 (1406.2661), Algorithm 1 with one step of each in turn:
    D: minimise −log D(x) − log(1 − D(G(z))),   z ~ N(0, I)
    G: minimise −log D(G(z)) (non-saturating), or log(1 − D(G(z))) (minimax).
Without an encoder, the model can only sample and decode. The exported and evaluated generator has
the running mean of the trained weights, at the epoch that the monitor selects
(``sample_monitor.py``).
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentserve_training.graphs.spec import Graph, GraphModule
from latentserve_training.models.adversarial import (
    AdversarialConfig,
    AdversarialModel,
    AveragedWeights,
    detached,
    frozen,
)
from latentserve_training.models.base import SAMPLE_METRICS
from latentserve_training.nn.adversarial_losses import discriminator_loss, generator_loss
from latentserve_training.nn.discriminators import LEAK
from latentserve_training.nn.networks import build_decoder
from latentserve_training.optim.optimizer import OptimizerConfig, minimise
from latentserve_training.pixels import ImageShape


@dataclass(frozen=True, kw_only=True)
class GANConfig(AdversarialConfig):
    """The fields of the ``[model]`` table; ``channels`` or ``hidden`` are the generator's."""

    latent_dim: int = 64
    mapping: tuple[int, ...] = ()  # widths of additional layers before those of the generator

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise ValueError("latent_dim must be 1 or more")
        if any(width < 1 for width in self.mapping):
            raise ValueError(f"mapping must list positive widths, not {list(self.mapping)}")


class GAN(AdversarialModel):
    """z ~ N(0, I) → x̂ = G(z), classified by D as real or generated."""

    kind = "gan"
    title = "Generative adversarial network"
    metrics = SAMPLE_METRICS
    plots = ("samples", "interpolation")

    def __init__(self, image_shape: ImageShape, config: GANConfig) -> None:
        super().__init__(image_shape, config.latent_dim, config)
        self.generator = build_generator(image_shape, config)
        self.averaged_generator = AveragedWeights(self.generator, config.averaging_decay)

    def generate(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]``, by the generator in training."""
        return torch.sigmoid(self.generator(latents))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``[n, d]`` to images ``[n, c, h, w]`` in [0, 1], by the averaged generator."""
        return torch.sigmoid(self.averaged_generator(latents))

    def sample_latents_like(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A latent vector from the prior for each image, ``[n, d]``, on the same device."""
        return self.sample_latents(len(images), generator).to(images.device)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of both networks; a GAN has no single ``"loss"``."""
        fake_logits = self.discriminator_logits(
            self.generate(self.sample_latents_like(images, generator))
        )
        return {
            "discriminator_loss": discriminator_loss(
                self.discriminator_logits(images), fake_logits
            ),
            "generator_loss": generator_loss(fake_logits, self.objective),
        }

    def optimizers(self, config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
        """One optimiser per network; the discriminator has a separate learning rate."""
        rate = self.discriminator_learning_rate
        return {
            "discriminator": self.adam(self.discriminator, rate, config),
            "generator": self.adam(self.generator, config.learning_rate, config),
        }

    def training_step(
        self,
        images: Tensor,
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
        config: OptimizerConfig,
    ) -> dict[str, Tensor]:
        """Take a step of the discriminator, then a step of the generator.

        Raises:
            NonFiniteLossError: If a loss or a gradient is NaN or infinite. If samples or logits are
                the cause, no weight has changed.
        """
        samples = self.generate(self.sample_latents_like(images, generator))
        fake_logits = self.discriminator_logits(samples.detach())
        loss = discriminator_loss(self.discriminator_logits(images), fake_logits)
        penalty, limit = self.r1_penalty(images), config.max_gradient_norm
        terms = {"discriminator_loss": loss, "r1_penalty": penalty}
        minimise(loss + penalty, optimizers["discriminator"], limit, terms)
        with frozen(self.discriminator):
            generator_cost = generator_loss(self.discriminator_logits(samples), self.objective)
            minimise(generator_cost, optimizers["generator"], limit)
        self.averaged_generator.update_parameters(self.generator)
        self.steps += 1
        return detached({"discriminator_loss": loss, "generator_loss": generator_cost})

    def graphs(self) -> tuple[Graph, ...]:
        """The graph of decode, which also serves Sample: the server samples the latents."""
        return (
            Graph(
                "decode.onnx",
                GraphModule(self, "decode"),
                "latents",
                ("images",),
                ("decode", "sample"),
            ),
        )


def build_generator(image_shape: ImageShape, config: GANConfig) -> nn.Module:
    """A module from latents ``[n, latent_dim]`` to logits ``[n, c, h, w]``.

    A decoder like that of other kinds; ``mapping`` adds layers before it that transform the normal
    distribution non-linearly (Karras et al. 2018, 1812.04948, section 2), because the first stage
    of the decoder is linear.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((config.latent_dim, *config.mapping)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(LEAK)]
    inputs = (config.latent_dim, *config.mapping)[-1]
    return nn.Sequential(*layers, build_decoder(image_shape, config, inputs))
