import copy

import numpy as np
import pytest
import torch

from latentserve_training.errors import NonFiniteLossError
from latentserve_training.models.autoencoder import Autoencoder, AutoencoderConfig
from latentserve_training.nn.gaussian_mixture import LatentMixture
from latentserve_training.optim.optimizer import OptimizerConfig


@pytest.fixture
def model():
    return Autoencoder((1, 4, 4), AutoencoderConfig(latent_dim=2, channels=(3,)))


def test_a_step_with_a_non_finite_loss_changes_no_weight(model):
    before = copy.deepcopy(model.state_dict())
    images = torch.full((2, 1, 4, 4), float("nan"))
    config = OptimizerConfig()
    with pytest.raises(NonFiniteLossError, match="the loss is nan"):
        model.training_step(images, model.optimizers(config), torch.Generator(), config)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_non_finite_gradient_is_refused(model):
    model.encoder.project.weight.register_hook(lambda gradient: gradient * float("inf"))
    config = OptimizerConfig()
    with pytest.raises(NonFiniteLossError, match="the gradient is"):
        model.training_step(
            torch.rand(2, 1, 4, 4), model.optimizers(config), torch.Generator(), config
        )


def test_only_models_with_a_prior_can_sample(model):
    with pytest.raises(ValueError, match="autoencoder has no prior"):
        model.sample_latents(3, torch.Generator())


def test_a_mixture_gives_a_prior_and_the_operation_sample(model):
    operations = [each for graph in model.graphs() for each in graph.operations]
    assert operations == ["encode", "decode", "reconstruct"]
    mixture = LatentMixture(
        np.ones(1), np.full((1, 2), 7, np.float32), 0.01 * np.eye(2, dtype=np.float32)[None]
    )
    for _ in range(2):  # a second one replaces the first
        model.set_mixture(mixture)
    assert model.prior == "gaussian_mixture"
    operations = [each for graph in model.graphs() for each in graph.operations]
    assert operations == ["encode", "decode", "sample", "reconstruct"]
    assert model.metrics == ("test_mse", "test_code_log_likelihood_nats")
    assert model.plots == ("reconstructions", "latents", "interpolation", "samples")
    drawn = model.sample_latents(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, torch.full((5, 2), 7.0), rtol=0, atol=0.1)
    assert Autoencoder.prior == "none", "other models of the kind keep theirs"


def test_the_posterior_of_a_deterministic_encoder_has_no_variance(model):
    images = torch.rand(2, 1, 4, 4)
    mean, log_variance = model.posterior(images)
    assert torch.equal(mean, model.encode(images))
    assert log_variance is None
