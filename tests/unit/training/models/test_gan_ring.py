"""Mode collapse test: eight narrow Gaussians on a ring, of which a collapsed GAN covers few.

A point is an image of two pixels, so the test trains the shipped GAN class.
"""

import math

import pytest
import torch

from latentserve_training.models.gan import GAN, GANConfig
from latentserve_training.optim.lr_schedule import learning_rate_factor
from latentserve_training.optim.optimizer import OptimizerConfig

MODES, RADIUS, SIGMA = 8, 0.4, 0.03
STEPS, BATCH, SAMPLES = 4000, 128, 2500
SHAPE = (1, 1, 2)


def centres():
    angles = torch.arange(MODES) * (2.0 * math.pi / MODES)
    return 0.5 + RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def draw(count, generator):
    modes = torch.randint(0, MODES, (count,), generator=generator)
    points = centres()[modes] + SIGMA * torch.randn(count, 2, generator=generator)
    return points.view(-1, *SHAPE)


def hits(points):
    """How many points lie within 3 σ of each mode."""
    distances, modes = torch.cdist(points.view(-1, 2), centres()).min(dim=1)
    return torch.bincount(modes[distances < 3.0 * SIGMA], minlength=MODES)


def test_the_mode_count_distinguishes_the_ring_from_scattered_points():
    generator = torch.Generator().manual_seed(0)
    assert hits(draw(SAMPLES, generator)).sum() > 0.98 * SAMPLES  # 1 − e^−4.5 of them
    angles = 2.0 * math.pi * torch.rand(SAMPLES, generator=generator)
    around = 0.5 + RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    assert hits(around).sum() < 0.65 * SAMPLES


@pytest.mark.slow
def test_all_modes_of_the_ring_are_found():
    torch.manual_seed(0)
    width = (64, 64, 64)
    model = GAN(
        SHAPE,
        GANConfig(
            network="mlp",
            latent_dim=4,
            mapping=(),
            hidden=width,
            discriminator_hidden=width,
            discriminator_learning_rate=3e-3,
            r1_weight=3e-4,
            averaging_decay=0.99,
        ),
    )
    config = OptimizerConfig(learning_rate=3e-3, beta1=0.5, beta2=0.99, warmup_steps=50)
    optimizers = model.optimizers(config)
    factor = learning_rate_factor(config, STEPS)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(each, factor) for each in optimizers.values()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        model.training_step(draw(BATCH, generator), optimizers, generator, config)
        for scheduler in schedulers:
            scheduler.step()
    with torch.inference_mode():
        found = hits(model.decode(model.sample_latents(SAMPLES, generator)))
    assert (found >= 0.02 * SAMPLES).all(), found  # an even share would be 0.125
    assert found.sum() >= 0.9 * SAMPLES, found
