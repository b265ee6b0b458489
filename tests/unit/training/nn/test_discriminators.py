import math

import pytest
import torch
from torch import nn

from latentserve_training.nn.adversarial_losses import discriminator_loss
from latentserve_training.nn.discriminators import Discriminator, DiscriminatorConfig

SHAPE = (1, 8, 12)


def build(shape=SHAPE, **fields):
    torch.manual_seed(0)
    fields = {"discriminator_channels": (3, 4), "discriminator_hidden": (5,)} | fields
    return Discriminator(shape, DiscriminatorConfig(**fields))


def discriminator_logits(network, batch):
    return network(batch)[1]


def images(count, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("network", ["conv", "residual", "mlp"])
@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 4, 4)])
def test_one_logit_for_each_image(network, shape):
    assert discriminator_logits(build(shape, network=network), images(6, shape)).shape == (6,)


def test_features_are_those_of_the_stage():
    network, batch = build(), images(6)
    shapes = [network(batch, layer)[0].shape for layer in (1, 2, 3)]
    assert shapes == [(6, 3 * 4 * 6), (6, 4 * 2 * 3), (6, 5)]
    torch.testing.assert_close(network(batch, 2)[1], discriminator_logits(network, batch))


@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_spectral_norm_makes_the_largest_singular_value_one(network):
    discriminator, batch = build(network=network, spectral_norm=True), images(4)
    for _ in range(50):  # a power iteration each
        discriminator(batch)
    layers = [each for each in discriminator.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    assert len(layers) == (4 if network == "conv" else 2)
    for layer in layers:
        largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
        assert largest.item() == pytest.approx(1.0, abs=1e-3)


def test_without_spectral_norm_weights_are_not_bounded():
    discriminator = build()
    assert {name.rpartition(".")[2] for name in discriminator.state_dict()} == {"weight", "bias"}


def test_logits_depend_on_other_images_only_by_minibatch_stddev():
    batch = images(6)
    alone = build()
    torch.testing.assert_close(
        discriminator_logits(alone, batch)[:1], discriminator_logits(alone, batch[:1])
    )
    together = build(minibatch_stddev=True)
    same = batch[:1].expand(6, -1, -1, -1)
    assert not torch.allclose(
        discriminator_logits(together, batch)[0], discriminator_logits(together, same)[0], atol=1e-4
    )


def test_images_that_are_all_alike_leave_the_gradient_finite():
    network = build(minibatch_stddev=True)
    inputs = torch.zeros(4, *SHAPE, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator_logits(network, inputs).sum(), inputs)
    assert torch.isfinite(gradient).all()


def test_with_an_optimal_generator_the_discriminator_ends_at_one_half():
    shape = (1, 1, 2)
    network = build(shape, network="mlp", discriminator_hidden=(16,))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(2)

    def draw():
        return torch.rand(512, *shape, generator=generator) ** 2

    for _ in range(400):
        optimizer.zero_grad()
        discriminator_loss(
            discriminator_logits(network, draw()), discriminator_logits(network, draw())
        ).backward()
        optimizer.step()
    with torch.inference_mode():
        losses = [
            discriminator_loss(
                discriminator_logits(network, draw()), discriminator_logits(network, draw())
            )
            for _ in range(20)
        ]
        beliefs = torch.sigmoid(discriminator_logits(network, draw()))
    assert torch.stack(losses).mean().item() == pytest.approx(2.0 * math.log(2.0), abs=0.02)
    assert (beliefs - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(
    "fields", [{"discriminator_hidden": (0,)}, {"discriminator_hidden": (), "network": "mlp"}]
)
def test_impossible_widths_are_refused(fields):
    with pytest.raises(ValueError, match="discriminator_hidden"):
        DiscriminatorConfig(**fields)
