import copy
import logging
import math

import pytest
import torch

from latentserve_training.errors import NonFiniteLossError
from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.models.gan import GAN, GANConfig
from latentserve_training.nn.adversarial_losses import discriminator_loss, generator_loss
from latentserve_training.optim.optimizer import OptimizerConfig

SHAPE = (1, 8, 4)
CONFIG = OptimizerConfig(learning_rate=1e-2)


def build(shape=SHAPE, **fields):
    torch.manual_seed(0)
    networks = {"channels": (3, 4), "discriminator_channels": (3, 4), "mapping": (5,)}
    fields = {"latent_dim": 3} | networks | fields
    return GAN(shape, GANConfig(**fields))


def images(count, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def step(model, batch, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return model.training_step(batch, model.optimizers(CONFIG), generator, CONFIG)


def state(model):
    return copy.deepcopy(model.state_dict())


def changed(before, model):
    return {
        name.partition(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(before[name], value)
    }


@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
def test_losses_are_those_of_both_networks(objective):
    model, batch = build(loss=objective), images(5)
    losses = model.losses(batch, torch.Generator().manual_seed(2))
    fakes = model.generate(model.sample_latents(5, torch.Generator().manual_seed(2)))
    real_logits, fake_logits = model.discriminator_logits(batch), model.discriminator_logits(fakes)
    expected = discriminator_loss(real_logits, fake_logits)
    torch.testing.assert_close(losses["discriminator_loss"], expected)
    torch.testing.assert_close(losses["generator_loss"], generator_loss(fake_logits, objective))


@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
def test_each_network_gets_the_gradient_of_its_own_loss(objective):
    model, batch = build(loss=objective, r1_weight=0.0), images(5)
    before = copy.deepcopy(model)
    rate = 0.1
    optimizers = {
        name: torch.optim.SGD(getattr(model, name).parameters(), rate)
        for name in ("discriminator", "generator")
    }
    model.training_step(batch, optimizers, torch.Generator().manual_seed(2), CONFIG)

    losses = before.losses(batch, torch.Generator().manual_seed(2))
    weights = list(before.discriminator.parameters())
    gradients = torch.autograd.grad(losses["discriminator_loss"], weights)
    for new, old, gradient in zip(
        model.discriminator.parameters(), weights, gradients, strict=True
    ):
        torch.testing.assert_close(new, old - rate * gradient)
    before.discriminator.load_state_dict(model.discriminator.state_dict())  # it moved first
    losses = before.losses(batch, torch.Generator().manual_seed(2))
    weights = list(before.generator.parameters())
    gradients = torch.autograd.grad(losses["generator_loss"], weights)
    for new, old, gradient in zip(model.generator.parameters(), weights, gradients, strict=True):
        torch.testing.assert_close(new, old - rate * gradient)


def test_the_discriminator_has_a_separate_learning_rate():
    optimizers = build(discriminator_learning_rate=0.5).optimizers(CONFIG)
    rates = {name: each.param_groups[0]["lr"] for name, each in optimizers.items()}
    assert rates == {"discriminator": 0.5, "generator": 1e-2}


def test_a_step_that_is_not_finite_changes_nothing():
    model = build(spectral_norm=False)
    before = state(model)
    with pytest.raises(NonFiniteLossError, match="the loss is nan"):
        step(model, torch.full((4, *SHAPE), float("nan")))
    assert changed(before, model) == set()
    with torch.no_grad():
        model.generator[0].weight.fill_(float("inf"))
    before = state(model)
    with pytest.raises(NonFiniteLossError, match="the loss is"):
        step(model, images(4))
    assert changed(before, model) == set()


@pytest.mark.parametrize("network", ["conv", "residual", "mlp"])
@pytest.mark.parametrize("shape", [(1, 8, 4), (3, 4, 12)])
def test_any_network_and_size_is_trained_and_exported(network, shape):
    model = build(shape, network=network, hidden=(6,), spectral_norm=True, minibatch_stddev=True)
    before = state(model)
    losses = step(model, images(6, shape))
    assert all(math.isfinite(value) for value in losses.values())
    assert {"generator", "discriminator", "averaged_generator", "steps"} <= changed(before, model)
    (graph,) = model.graphs()
    proto = convert(graph.evaluating(), shape, 3)
    assert check_parity(proto, graph, shape, 3) < 1e-6
    assert graph.operations == ("decode", "sample")
    # The discriminator, its normalisation and the weights being trained stay at home.
    exported = sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)
    generator = sum(weight.numel() for weight in model.generator.parameters())
    assert generator <= exported < generator + 20


def test_the_averaged_generator_is_served():
    model, latents = build(), torch.randn(4, 3)
    for seed in range(5):
        step(model, images(6), seed)
    expected = torch.sigmoid(model.averaged_generator.module(latents))
    torch.testing.assert_close(model.decode(latents), expected)
    assert not torch.allclose(model.decode(latents), model.generate(latents))


def test_there_is_no_encoder():
    with pytest.raises(NotImplementedError, match="gan has no encoder"):
        build().encode(images(2))


def test_a_generator_that_always_gives_the_same_image_is_reported(image_data, caplog):
    model = build(image_data.image_shape).eval()
    model.initialise_from_data(image_data.train)
    with torch.no_grad():
        model.averaged_generator.module[0].weight.zero_()  # whatever z is
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        losses = model.validation_losses(image_data.validation, seed=0)
    assert losses["loss"] == losses["frechet_distance"] > 0
    assert losses["diversity"] < 1e-6
    assert "the samples have collapsed" in caplog.text


def test_the_epoch_is_selected_by_the_samples_not_by_the_losses(image_data):
    """Validation does not use the discriminator, and the same seed gives the same value."""
    model = build(image_data.image_shape).eval()
    model.initialise_from_data(image_data.train)
    with torch.inference_mode():
        first = model.validation_losses(image_data.validation, seed=0)
        for weight in model.discriminator.parameters():
            weight.add_(1.0)
        assert model.validation_losses(image_data.validation, seed=0) == first
        assert model.validation_losses(image_data.validation, seed=1) != first


@pytest.mark.parametrize("fields", [{"latent_dim": 0}, {"mapping": (0,)}])
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        GANConfig(**fields)
