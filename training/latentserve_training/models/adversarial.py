"""Base class of kinds with a discriminator: its losses, averaged weights and sample monitor."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from latentserve_training.models.base import VALIDATION_BATCH, LatentModel
from latentserve_training.models.sample_monitor import MonitorFeatures, SampleMonitor
from latentserve_training.nn.adversarial_losses import Objective, gradient_penalty
from latentserve_training.nn.discriminators import Discriminator, DiscriminatorConfig
from latentserve_training.optim.optimizer import OptimizerConfig
from latentserve_training.pixels import ImageShape

MONITORED_SAMPLES = 2000
AVERAGING_WARM_UP = 10.0  # steps; reduces the weight of the random initial weights in short runs


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(DiscriminatorConfig):
    """The fields of the ``[model]`` table that adversarial kinds share."""

    loss: Objective = "non_saturating"
    # Two time scales (Heusel et al. 2017, 1706.08500): optimizer.learning_rate is the generator's.
    discriminator_learning_rate: float = 2e-3
    r1_weight: float = 1.0  # 0 turns the penalty off
    r1_interval: int = 16  # the penalty is computed every so many steps, with that factor
    averaging_decay: float = 0.999
    monitor: MonitorFeatures = "pixels"  # features for the comparison of samples after each epoch

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.discriminator_learning_rate > 0:
            raise ValueError("discriminator_learning_rate must be above 0")
        if not self.r1_weight >= 0:
            raise ValueError("r1_weight must be 0 (off) or more")
        if self.r1_interval < 1:
            raise ValueError("r1_interval must be 1 or more")
        if not 0 <= self.averaging_decay < 1:
            raise ValueError("averaging_decay must lie in [0, 1)")


class AdversarialModel(LatentModel):
    """A decoder, a discriminator of its images, and a monitor that evaluates its samples."""

    prior = "standard_normal"
    steps: Tensor

    def __init__(self, image_shape: ImageShape, latent_dim: int, config: AdversarialConfig) -> None:
        super().__init__(image_shape, latent_dim)
        self.objective: Objective = config.loss
        self.r1_weight = config.r1_weight
        self.r1_interval = config.r1_interval
        self.discriminator_learning_rate = config.discriminator_learning_rate
        self.discriminator = Discriminator(image_shape, config)
        self.monitor = SampleMonitor(image_shape, config.monitor)
        self.register_buffer("steps", torch.tensor(0))  # steps taken; determines when R₁ is due

    def initialise_from_data(self, images: Tensor) -> None:
        """Fit the monitor."""
        self.monitor.fit(images)

    def validation_losses(self, images: Tensor, seed: int) -> dict[str, float]:
        """Compare samples with uint8 images; log a warning if the samples have collapsed.

        Adversarial losses do not measure quality, so the Fréchet distance is the ``"loss"``.
        """
        device = next(self.parameters()).device
        latents = self.sample_latents(MONITORED_SAMPLES, torch.Generator().manual_seed(seed))
        batches = [
            self.decode(batch.to(device)) for batch in torch.split(latents, VALIDATION_BATCH)
        ]
        quality = self.monitor.compare(images, torch.cat(batches))
        quality.warn()
        return quality.as_losses()

    def discriminator_logits(self, images: Tensor) -> Tensor:
        """The logits of the discriminator, ``[n]``."""
        logits: Tensor = self.discriminator(images)[1]
        return logits

    def r1_penalty(self, images: Tensor) -> Tensor:
        """The weighted R₁ penalty at images ``[n, c, h, w]`` if it is due in this step, else 0.

        It is computed every ``r1_interval`` steps and multiplied by that number (Karras et al.
        2019, 1912.04958, appendix B): the same objective without a second derivative in every step.
        """
        if not self.r1_weight or self.steps.item() % self.r1_interval:
            return torch.zeros((), device=images.device)
        inputs = images.detach().requires_grad_()
        penalty = gradient_penalty(self.discriminator_logits(inputs), inputs)
        return self.r1_weight * self.r1_interval * penalty

    def adam(self, module: nn.Module, rate: float, config: OptimizerConfig) -> torch.optim.Adam:
        """Adam for one of the networks, with the configured betas."""
        return torch.optim.Adam(module.parameters(), rate, (config.beta1, config.beta2))


class AveragedWeights(AveragedModel):
    """A network whose weights are the running mean of another's (Yazıcı et al. 2018, 1806.04498).

    Weights in adversarial training oscillate around the solution, and their mean is closer to it.
    The averaged network is part of the state dict; it is the one that is evaluated and exported.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, avg_fn=running_mean(decay))
        self.requires_grad_(False)


def running_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The update of an exponential mean whose window grows over the first steps."""

    def update(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        kept = min(decay, (1.0 + int(steps)) / (AVERAGING_WARM_UP + int(steps)))
        return torch.lerp(current, averaged, kept)

    return update


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Compute no gradients for the weights of ``module``; gradients still pass through it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses to report, detached from the autograd graph."""
    return {name: value.detach() for name, value in losses.items()}
