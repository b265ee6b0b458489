import pytest
import torch
from torch import nn

from latentserve_training.models.adversarial import AdversarialConfig, AveragedWeights, frozen
from latentserve_training.models.gan import GAN, GANConfig
from latentserve_training.optim.optimizer import OptimizerConfig

SHAPE = (1, 4, 4)


def build(**fields):
    torch.manual_seed(0)
    networks = {"channels": (3,), "discriminator_channels": (3,), "mapping": (5,)}
    fields = {"latent_dim": 2} | networks | fields
    return GAN(SHAPE, GANConfig(**fields))


def weight_of(value):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_averaged_weights_are_the_running_mean():
    averaged = AveragedWeights(weight_of(7.0), decay=0.5)
    for value in (1.0, 2.0, 4.0):
        averaged.update_parameters(weight_of(value))
    # The first weights are taken as they are; then (1 + n) / (10 + n) of the old, 1/2 at most.
    first = 1.0
    second = 2.0 + (2 / 11) * (first - 2.0)
    third = 4.0 + (3 / 12) * (second - 4.0)
    assert averaged.module.weight.item() == pytest.approx(third, rel=1e-6)


def test_the_window_of_the_mean_is_limited():
    averaged = AveragedWeights(weight_of(0.0), decay=0.5)
    for _ in range(200):
        averaged.update_parameters(weight_of(0.0))
    averaged.update_parameters(weight_of(1.0))
    assert averaged.module.weight.item() == pytest.approx(0.5)


def test_averaged_weights_are_kept_but_not_trained():
    model = build()
    assert "averaged_generator.module.0.weight" in model.state_dict()
    assert not any(each.requires_grad for each in model.averaged_generator.parameters())
    trained = {
        id(weight)
        for optimizer in model.optimizers(OptimizerConfig()).values()
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert trained == {id(each) for each in model.parameters() if each.requires_grad}


def test_the_r1_penalty_is_computed_at_its_interval():
    model, images = build(r1_weight=0.5, r1_interval=3), torch.rand(4, *SHAPE)
    due = model.r1_penalty(images)
    every_step = build(r1_weight=0.5, r1_interval=1).r1_penalty(images)
    torch.testing.assert_close(due, 3.0 * every_step)
    for step, expected in [(1, 0.0), (2, 0.0), (3, due.item())]:
        model.steps.fill_(step)
        assert model.r1_penalty(images).item() == expected
    assert build(r1_weight=0.0).r1_penalty(images).item() == 0.0


def test_gradients_pass_through_frozen_weights():
    layer, inputs = nn.Linear(2, 1), torch.rand(3, 2, requires_grad=True)
    with frozen(layer):
        layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is not None
    assert layer.weight.requires_grad


@pytest.mark.parametrize(
    "fields",
    [
        {"discriminator_learning_rate": 0.0},
        {"r1_weight": -1.0},
        {"r1_interval": 0},
        {"averaging_decay": 1.0},
    ],
)
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        AdversarialConfig(**fields)
