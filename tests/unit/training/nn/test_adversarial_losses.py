import math

import pytest
import torch

from latentserve_training.nn.adversarial_losses import (
    discriminator_loss,
    equilibrium_rule,
    fake_cost,
    generator_loss,
    gradient_penalty,
    real_cost,
)
from latentserve_training.nn.discriminators import Discriminator, DiscriminatorConfig

LOG_4 = math.log(4.0)
DATA = torch.tensor([5, 3, 1, 1])  # how often each of four points occurs: p = DATA / 10
GENERATED = [
    torch.tensor([5, 3, 1, 1]),
    torch.tensor([1, 2, 3, 4]),
    torch.tensor([9, 1, 0, 0]),
]


def best_logits(generated):
    """log p / q, so that D = p / (p + q); a point that is never generated is certainly real."""
    return torch.where(generated > 0, (DATA / generated).log(), torch.tensor(200.0)).double()


def value(logits, generated):
    return -discriminator_loss(
        logits.repeat_interleave(DATA), logits.repeat_interleave(generated)
    ).item()


def jensen_shannon(generated):
    p, q = DATA.double() / 10, generated.double() / 10
    middle = (p + q) / 2

    def divergence(of):
        return torch.special.xlogy(of, of / middle).sum().item()

    return 0.5 * divergence(p) + 0.5 * divergence(q)


@pytest.mark.parametrize("generated", GENERATED, ids=["equal", "other", "missing"])
def test_the_value_of_the_best_discriminator_is_the_jensen_shannon_divergence(generated):
    expected = 2.0 * jensen_shannon(generated) - LOG_4
    assert value(best_logits(generated), generated) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("generated", GENERATED, ids=["equal", "other", "missing"])
def test_no_other_discriminator_is_better(generated):
    best = best_logits(generated)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = best + torch.randn(4, generator=generator).double()
        assert value(other, generated) < value(best, generated)


def test_at_the_optimum_the_loss_is_log_4():
    logits = best_logits(DATA)
    assert torch.equal(torch.sigmoid(logits), torch.full((4,), 0.5).double())
    assert value(logits, DATA) == pytest.approx(-LOG_4, rel=1e-12)
    assert generator_loss(logits, "non_saturating").item() == pytest.approx(math.log(2.0))


def test_costs_are_negative_logarithms_of_d():
    logits = torch.tensor([-1.0, 0.5, 2.0]).double()
    belief = torch.sigmoid(logits)
    torch.testing.assert_close(real_cost(logits), -belief.log().mean())
    torch.testing.assert_close(fake_cost(logits), -(1.0 - belief).log().mean())


def test_gradients_of_the_two_objectives():
    """−D for the minimax loss, −(1 − D) for the non-saturating one; per image."""
    logits = torch.tensor([-6.0, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
    belief = torch.sigmoid(logits.detach())
    (minimax,) = torch.autograd.grad(generator_loss(logits, "minimax"), logits)
    (non_saturating,) = torch.autograd.grad(generator_loss(logits, "non_saturating"), logits)
    torch.testing.assert_close(minimax, -belief / 3)
    torch.testing.assert_close(non_saturating, -(1.0 - belief) / 3)
    assert non_saturating[0].abs() > 100 * minimax[0].abs()  # where D is sure of a fake


@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
def test_extreme_logits_do_not_overflow(objective):
    logits = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = generator_loss(logits, objective) + discriminator_loss(logits, logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_the_r1_penalty_is_half_the_squared_jacobian():
    torch.manual_seed(0)
    network = Discriminator((1, 4, 4), DiscriminatorConfig(discriminator_channels=(3,))).double()
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    inputs = images.clone().requires_grad_()
    penalty = gradient_penalty(network(inputs)[1], inputs)
    slopes = [
        torch.autograd.functional.jacobian(lambda x: network(x[None])[1][0], each)
        for each in images
    ]
    expected = torch.stack([0.5 * slope.square().sum() for slope in slopes]).mean()
    torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)


def test_the_r1_penalty_trains_the_weights():
    weight = torch.tensor([3.0, -4.0], dtype=torch.float64, requires_grad=True)
    images = torch.rand(6, 1, 1, 2, dtype=torch.float64).requires_grad_()
    penalty = gradient_penalty(images.flatten(1) @ weight, images)
    assert penalty.item() == pytest.approx(12.5)  # ½‖w‖²
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, weight.detach())


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        (0.68, 0.68, (True, True)),
        (0.20, 0.68, (False, True)),  # the discriminator is ahead: it waits
        (0.68, 0.20, (False, True)),
        (1.10, 0.68, (True, False)),  # the decoder is ahead
        (0.68, 1.10, (True, False)),
        (0.20, 1.10, (True, True)),  # both would wait for ever
        (0.34, 1.02, (True, True)),  # within the margin
    ],
)
def test_the_network_that_is_ahead_is_not_trained(real, fake, expected):
    assert equilibrium_rule(real, fake, margin=0.35) == expected
