import pytest
import torch

from latentserve_training.optim.optimizer import OptimizerConfig, take_step


@pytest.mark.parametrize(("max_norm", "expected"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_gradients_are_clipped_only_above_the_limit(max_norm, expected):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    take_step(torch.optim.SGD([weight], lr=1.0), max_norm)
    assert weight.norm().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "fields",
    [{"learning_rate": 0.0}, {"warmup_steps": -1}, {"beta1": 1.0}, {"max_gradient_norm": -1.0}],
)
def test_impossible_optimizers_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        OptimizerConfig(**fields)
