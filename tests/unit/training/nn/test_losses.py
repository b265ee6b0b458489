import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from latentserve_training.nn.losses import (
    cross_entropy,
    gaussian_log_likelihood,
    importance_weighted_bound,
    kl_by_latent,
    kl_to_standard_normal,
    log_prior_over_posterior,
    squared_error,
)


@pytest.mark.parametrize("log_variance", [-10.0, -8.0, -1.0, 0.0, 2.0, 10.0])
def test_kl_equals_its_monte_carlo_estimate(log_variance):
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([[0.7, -1.3]], dtype=torch.float64)
    log_variances = torch.full_like(mean, log_variance)
    posterior = Normal(mean, torch.exp(0.5 * log_variances))
    noise = torch.randn(100_000, 2, dtype=torch.float64, generator=generator)
    z = posterior.mean + posterior.stddev * noise

    draws = (posterior.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)

    standard_error = draws.std() / math.sqrt(len(draws))
    closed_form = kl_to_standard_normal(mean, log_variances)
    assert abs(closed_form.item() - draws.mean()) < 3 * standard_error


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
    assert kl_to_standard_normal(torch.zeros(1, 5), torch.zeros(1, 5)).item() == 0.0
    generator = torch.Generator().manual_seed(1)
    parameters = torch.randn(2, 500, 4, generator=generator)
    assert (kl_to_standard_normal(parameters[0], parameters[1]) > 0).all()


def test_kl_by_latent_adds_up():
    generator = torch.Generator().manual_seed(5)
    mean, log_variance = torch.randn(2, 3, 4, generator=generator)
    by_latent = kl_by_latent(mean, log_variance)
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0))
    torch.testing.assert_close(by_latent, expected)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected.sum(1))


def test_log_prior_over_posterior_is_that_of_the_densities():
    generator = torch.Generator().manual_seed(6)
    mean, log_variance = torch.randn(2, 3, 4, generator=generator)
    latents = torch.randn(5, 3, 4, generator=generator)
    posterior = Normal(mean, torch.exp(0.5 * log_variance))
    expected = (Normal(0.0, 1.0).log_prob(latents) - posterior.log_prob(latents)).sum(2)
    actual = log_prior_over_posterior(latents, mean, log_variance)
    torch.testing.assert_close(actual, expected)


def test_the_importance_weighted_bound_survives_weights_that_underflow():
    log_weights = torch.tensor([[-2000.0, -1.0], [-2000.0 + math.log(3.0), -1.0]])
    expected = torch.tensor([-2000.0 + math.log(2.0), -1.0])
    torch.testing.assert_close(importance_weighted_bound(log_weights), expected)


def test_gaussian_log_likelihood_equals_the_sum_of_log_densities():
    generator = torch.Generator().manual_seed(2)
    images, mean = torch.rand(2, 3, 2, 4, 5, dtype=torch.float64, generator=generator)
    log_sigma = torch.tensor(-1.7, dtype=torch.float64)

    expected = Normal(mean, log_sigma.exp()).log_prob(images).flatten(1).sum(1)

    torch.testing.assert_close(gaussian_log_likelihood(mean, log_sigma, images), expected)


def test_the_best_sigma_is_the_root_mean_squared_error():
    generator = torch.Generator().manual_seed(3)
    images, mean = torch.rand(2, 6, 1, 4, 4, dtype=torch.float64, generator=generator)
    log_sigma = (images - mean).square().mean().sqrt().log().requires_grad_()

    gaussian_log_likelihood(mean, log_sigma, images).mean().backward()

    assert log_sigma.grad is not None
    assert abs(log_sigma.grad.item()) < 1e-10


def test_cross_entropy_is_the_bernoulli_likelihood_of_binary_images():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 1, 4, 4, generator=generator)
    images = (torch.rand(3, 1, 4, 4, generator=generator) < 0.5).float()

    expected = -Bernoulli(logits=logits).log_prob(images).flatten(1).sum(1)

    torch.testing.assert_close(cross_entropy(logits, images), expected)


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = torch.full((1, 1, 1, 2), 200.0)
    images = torch.tensor([[[[1.0, 0.0]]]])
    assert cross_entropy(logits, images).item() == 200.0


def test_squared_error_sums_over_pixels_and_keeps_images_apart():
    images = torch.zeros(2, 1, 3, 3)
    reconstruction = torch.stack([torch.full((1, 3, 3), 1.0), torch.full((1, 3, 3), 2.0)])
    assert squared_error(reconstruction, images).tolist() == [9.0, 36.0]
