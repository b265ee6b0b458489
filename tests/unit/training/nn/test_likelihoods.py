import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from latentserve_training.nn.likelihoods import (
    MINIMUM_SIGMA,
    BernoulliLikelihood,
    GaussianLikelihood,
    optimal_log_sigma,
)


@pytest.fixture
def outputs():
    """For 2 samples for each of 3 images."""
    return torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images():
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("sigma_mode", ["fixed", "learned"])
def test_a_gaussian_sums_log_densities_for_each_sample(sigma_mode, linear, outputs, images):
    likelihood = GaussianLikelihood(sigma_mode, 0.2, linear=linear)
    means = outputs if linear else torch.sigmoid(outputs)
    expected = Normal(means.view(2, 3, 16), 0.2).log_prob(images.view(3, 16)).sum(2)
    actual, reported = likelihood.log_likelihood(outputs, images)
    torch.testing.assert_close(actual, expected)
    assert reported["sigma"].item() == pytest.approx(0.2)
    assert likelihood.describe() == {"family": "gaussian", "sigma": pytest.approx(0.2)}


def test_a_bernoulli_sums_log_probabilities_for_each_sample(outputs, images):
    bits = (images > 0.5).float()
    expected = Bernoulli(logits=outputs.view(2, 3, 16)).log_prob(bits.view(3, 16)).sum(2)
    actual, reported = BernoulliLikelihood().log_likelihood(outputs, bits)
    torch.testing.assert_close(actual, expected)
    assert reported == {}


def test_only_a_learned_sigma_is_a_parameter():
    modes = ("fixed", "learned", "optimal")
    counts = [len(list(GaussianLikelihood(mode, 0.3).parameters())) for mode in modes]
    assert counts == [0, 1, 0]


def test_the_learned_sigma_is_optimal_at_the_root_mean_squared_error(outputs, images):
    error = (torch.sigmoid(outputs) - images.repeat(2, 1, 1, 1)).square().mean().sqrt().item()
    for sigma, direction in ((0.8 * error, 1), (error, 0), (1.25 * error, -1)):
        likelihood = GaussianLikelihood("learned", sigma)
        likelihood.log_likelihood(outputs, images)[0].mean().backward()
        gradient = likelihood.log_sigma_above_minimum.grad.item()
        assert (
            gradient == pytest.approx(0, abs=1e-3) if direction == 0 else gradient * direction > 1
        )


def test_sigma_stays_above_its_minimum_and_keeps_a_gradient():
    likelihood = GaussianLikelihood("learned", 0.3)
    with torch.no_grad():
        likelihood.log_sigma_above_minimum.fill_(-9.0)
    likelihood.log_sigma.backward()
    assert likelihood.log_sigma.item() >= math.log(MINIMUM_SIGMA)
    assert likelihood.log_sigma_above_minimum.grad > 0


def test_a_higher_minimum_holds_for_every_mode_that_has_one(outputs, images):
    for mode in ("learned", "optimal"):
        likelihood = GaussianLikelihood(mode, 0.6, minimum_sigma=0.5)
        if mode == "learned":
            with torch.no_grad():
                likelihood.log_sigma_above_minimum.fill_(-20.0)
        _, reported = likelihood.log_likelihood(0.01 * outputs, images)
        assert reported["sigma"].item() >= 0.5


def test_the_optimal_sigma_of_a_batch_is_better_than_any_other(outputs, images):
    optimal = GaussianLikelihood("optimal", 0.3)
    best, reported = optimal.log_likelihood(outputs, images)
    error = (torch.sigmoid(outputs) - images.repeat(2, 1, 1, 1)).square().mean().sqrt().item()
    # The soft minimum adds a little: log(1 + minimum / error) to log σ.
    assert reported["sigma"].item() == pytest.approx(error + MINIMUM_SIGMA, rel=1e-5)
    for factor in (0.9, 1.1):
        other, _ = GaussianLikelihood("fixed", factor * error).log_likelihood(outputs, images)
        assert other.mean() < best.mean()


def test_images_that_are_copied_exactly_leave_the_optimal_sigma_finite(images):
    log_sigma = optimal_log_sigma(images, images, math.log(MINIMUM_SIGMA))
    assert log_sigma.item() == pytest.approx(math.log(MINIMUM_SIGMA))


def test_an_optimal_sigma_is_kept_for_evaluation(outputs, images):
    likelihood = GaussianLikelihood("optimal", 0.3)
    sigmas = []
    for step in range(3):
        _, reported = likelihood.log_likelihood(outputs * (step + 1), images)
        likelihood.update_sigma(reported, step)
        sigmas.append(reported["sigma"].item())
    kept = math.sqrt(sum(sigma**2 for sigma in sigmas) / 3)
    assert likelihood.describe()["sigma"] == pytest.approx(kept)

    likelihood.eval()
    whole, reported = likelihood.log_likelihood(outputs, images)
    assert reported["sigma"].item() == pytest.approx(kept)
    alone, _ = likelihood.log_likelihood(outputs[::3], images[:1])
    torch.testing.assert_close(alone, whole[:, :1])
    assert GaussianLikelihood("optimal", 0.1).state_dict().keys() == {"sigma"}


def test_the_running_sigma_forgets_the_first_batches():
    likelihood = GaussianLikelihood("optimal", 0.3)
    for step in range(1500):
        likelihood.update_sigma({"sigma": torch.tensor(0.5 if step < 100 else 0.1)}, step)
    assert likelihood.describe()["sigma"] == pytest.approx(0.1, rel=1e-3)


def test_a_fixed_sigma_stays(outputs, images):
    likelihood = GaussianLikelihood("fixed", 0.3)
    likelihood.update_sigma({"sigma": torch.tensor(0.9)}, 0)
    assert likelihood.describe()["sigma"] == pytest.approx(0.3)
