import math

import pytest
import torch

from latentserve_training.models.vae import (
    LOG_VARIANCE_LIMIT,
    MINIMUM_SIGMA,
    VAE,
    VAEConfig,
)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return VAE((1, 4, 4), VAEConfig(latent_dim=2, channels=(3,), initial_sigma=0.25))


def test_elbo_gradients_equal_finite_differences(vae):
    vae.double()
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    names = [name for name, _ in vae.named_parameters()]

    def elbo(*parameters):
        state = dict(zip(names, parameters, strict=True))
        # The same noise at every evaluation, or the differences would be those of the draws.
        generator = torch.Generator().manual_seed(5)
        losses = torch.func.functional_call(
            Losses(vae), {f"vae.{k}": v for k, v in state.items()}, (images, generator)
        )
        return losses["loss"]

    parameters = [each.detach().clone().requires_grad_() for each in vae.parameters()]
    assert torch.autograd.gradcheck(elbo, parameters)


class Losses(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, images, generator):
        return self.vae.losses(images, generator)


def test_the_loss_is_minus_the_elbo(vae):
    images = torch.rand(5, 1, 4, 4)
    losses = vae.losses(images, torch.Generator().manual_seed(1))
    log_likelihood, kl = vae.elbo_terms(images, torch.Generator().manual_seed(1))
    torch.testing.assert_close(losses["loss"], -(log_likelihood - kl).mean())


def test_the_elbo_is_below_an_importance_weighted_bound(vae):
    # Burda et al. 2015 (1509.00519), theorem 1: log-mean-exp of k weights bounds log p(x) tighter.
    images = torch.rand(3, 1, 4, 4)
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        mean, log_variance = vae.encode(images)
        posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
        weights = []
        for _ in range(500):
            z = vae.reparameterize(mean, log_variance, generator)
            likelihood = torch.distributions.Normal(vae.decode(z), vae.log_sigma.exp())
            log_joint = likelihood.log_prob(images).flatten(1).sum(1)
            log_joint += torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
            weights.append(log_joint - posterior.log_prob(z).sum(1))
        bound = torch.logsumexp(torch.stack(weights), 0) - math.log(len(weights))
        elbo = torch.stack(
            [torch.sub(*vae.elbo_terms(images, generator)) for _ in range(500)]
        ).mean(0)
    torch.testing.assert_close(torch.stack(weights).mean(0), elbo, atol=0.2, rtol=0)
    assert (elbo < bound).all()


def test_training_starts_at_the_sigma_that_was_asked_for(vae):
    assert vae.likelihood() == {"family": "gaussian", "sigma": pytest.approx(0.25)}


def test_sigma_stays_above_its_minimum_and_keeps_a_gradient(vae):
    with torch.no_grad():
        vae.log_sigma_above_minimum.fill_(-9.0)
    vae.log_sigma.backward()
    assert vae.log_sigma.item() >= math.log(MINIMUM_SIGMA)
    assert vae.log_sigma_above_minimum.grad > 0


def test_log_variance_is_clamped_so_that_extreme_weights_stay_finite(vae):
    with torch.no_grad():
        vae.encoder.project.bias.fill_(1e4)
    _, log_variance = vae.encode(torch.rand(2, 1, 4, 4))
    assert (log_variance == LOG_VARIANCE_LIMIT).all()
    assert torch.isfinite(torch.exp(log_variance)).all()


def test_reconstruct_repeats_itself(vae):
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(vae.reconstruct(images), vae.reconstruct(images))


def test_a_sigma_below_the_minimum_is_refused():
    with pytest.raises(ValueError, match="initial_sigma"):
        VAEConfig(initial_sigma=MINIMUM_SIGMA)
