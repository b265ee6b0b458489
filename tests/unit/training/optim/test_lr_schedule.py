import math

import pytest
import torch

from latentserve_training.optim.lr_schedule import LearningRateSchedule, learning_rate_factor
from latentserve_training.optim.optimizer import OptimizerConfig


def test_every_group_of_every_optimizer_follows_its_own_peak():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizers = {
        "generator": torch.optim.SGD(
            [{"params": weights[:1]}, {"params": weights[1:2], "lr": 2.0}]
        ),
        "discriminator": torch.optim.SGD(weights[2:], lr=8.0),
    }
    optimizers["generator"].param_groups[0]["lr"] = 1.0
    schedule = LearningRateSchedule(optimizers, OptimizerConfig(warmup_steps=4), total_steps=20)
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = 77.0  # as a checkpoint would
    schedule.set_rates(1)
    rates = [group["lr"] for each in optimizers.values() for group in each.param_groups]
    assert rates == [0.5, 1.0, 4.0]


def test_learning_rate_rises_linearly_and_falls_as_a_cosine():
    factor = learning_rate_factor(OptimizerConfig(warmup_steps=10), total_steps=110)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(10) == 1.0
    assert factor(60) == pytest.approx(0.5)
    assert factor(85) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert factor(110) == pytest.approx(0.0)


def test_warm_up_never_takes_more_than_half_of_a_short_run():
    factor = learning_rate_factor(OptimizerConfig(warmup_steps=1000), total_steps=10)
    assert factor(5) == 1.0
    assert factor(9) < 0.2
