import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli

from latentserve_training.evaluate import likelihood
from latentserve_training.evaluate.likelihood import (
    active_units,
    bounds,
    elbo_nats,
    independent_pixels_log_likelihood,
    kl_nats,
    log_likelihood_nats,
    log_likelihood_of,
    observed_test_images,
)
from latentserve_training.evaluate.metric import NOISE_SEED, Subject
from latentserve_training.evaluate.suite import evaluate
from latentserve_training.metrics.baselines import fit_pca, to_rows
from latentserve_training.nn.likelihoods import MINIMUM_SIGMA
from latentserve_training.pixels import to_float
from latentserve_training.train.loop import build_model

DIM = 3
LINEAR = {"network": "mlp", "hidden": [], "output": "linear"}
PARTS = ("train", "validation", "test")
BITS = {"likelihood": "bernoulli", "binarisation": "dynamic"}


@pytest.fixture
def exact(make_config, image_data):
    """The maximum likelihood of probabilistic PCA, written into a linear VAE, in float64."""
    model = build_model(make_config("vae", model=LINEAR), image_data.image_shape).double().eval()
    pca = fit_pca(image_data.all_train)
    variance = pca.noise_variance(DIM)
    gain = torch.from_numpy(np.sqrt(pca.variances[:DIM] - variance))
    directions, mean = torch.from_numpy(pca.directions[:, :DIM].copy()), torch.from_numpy(pca.mean)
    # Tipping & Bishop 1999, section 3.2: p(z|x) = N(M⁻¹Wᵀ(x − μ), σ²M⁻¹), M = WᵀW + σ²I, and M
    # is diagonal where the columns of W are orthogonal.
    precision = gain.square() + variance
    (encoder,), (decoder,) = model.encoder.layers, model.decoder.layers
    with torch.no_grad():
        decoder.weight.copy_(directions * gain)
        decoder.bias.copy_(mean)
        encoder.weight.zero_()
        encoder.weight[:DIM] = (gain / precision)[:, None] * directions.T
        encoder.bias[:DIM] = -encoder.weight[:DIM] @ mean
        encoder.bias[DIM:] = (variance / precision).log()
        ratio = math.sqrt(variance) / MINIMUM_SIGMA
        model.observation.log_sigma_above_minimum.fill_(math.log(ratio - 1.0))
    return model


def measured(model, image_data, samples, seed=0):
    images = image_data.test.double() / 255.0
    with torch.inference_mode():
        return bounds(model, images, samples, torch.Generator().manual_seed(seed))


def log_likelihood_by_pca(image_data):
    values = fit_pca(image_data.all_train).log_likelihood(to_rows(image_data.test), DIM)
    return torch.from_numpy(values)


def test_with_the_exact_posterior_one_sample_gives_the_exact_log_likelihood(exact, image_data):
    expected = log_likelihood_by_pca(image_data)
    for samples in (1, 7):
        result = measured(exact, image_data, samples)
        torch.testing.assert_close(result.log_likelihood, expected, rtol=1e-9, atol=1e-6)
    result = measured(exact, image_data, 500)
    assert result.elbo.mean().item() == pytest.approx(expected.mean().item(), abs=0.05)


def test_the_bounds_rise_with_the_samples_and_stay_below_the_exact_log_likelihood(
    exact, image_data
):
    with torch.no_grad():
        exact.encoder.layers[0].bias[:DIM] += 0.1  # a posterior beside the exact one, and wider
        exact.encoder.layers[0].bias[DIM:] += 1.0
    few, more = measured(exact, image_data, 5), measured(exact, image_data, 64)
    limit = log_likelihood_by_pca(image_data).mean()
    means = [more.elbo.mean(), few.log_likelihood.mean(), more.log_likelihood.mean(), limit]
    assert all(lower < higher for lower, higher in itertools.pairwise(means)), means
    many = measured(exact, image_data, 5000)
    assert many.log_likelihood.mean().item() == pytest.approx(limit.item(), abs=0.02)


class Recorder(torch.nn.Module):
    """A model that records its inputs and has a fixed posterior."""

    kind = "recorder"

    def __init__(self):
        super().__init__()
        self.encoded, self.latents = 0, []

    def posterior(self, images):
        self.encoded += len(images)
        mean = torch.linspace(-1, 1, len(images))[:, None].expand(-1, 2)
        return mean, torch.full_like(mean, -1.0)

    def decode_unclipped(self, latents):
        self.latents.append(latents)
        return torch.sigmoid(latents.sum(1))[:, None, None, None].expand(-1, 1, 2, 2)

    def likelihood(self):
        return {"family": "gaussian", "sigma": 0.5}


def test_images_are_encoded_once_and_samples_are_decoded_in_chunks(monkeypatch):
    monkeypatch.setattr(likelihood, "DECODED_AT_ONCE", 12)
    model, images = Recorder(), torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    result = bounds(model, images, 10, torch.Generator().manual_seed(2))
    assert model.encoded == 3
    assert [len(each) for each in model.latents] == [12, 12, 6]

    latents = torch.cat([each.unflatten(0, (-1, 3)) for each in model.latents]).double()
    mean, log_variance = (each.double() for each in Recorder().posterior(images))
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    prior = torch.distributions.Normal(0.0, 1.0)
    decoded = torch.sigmoid(latents.sum(2))[..., None]
    pixels = images.flatten(1).double()
    log_likelihood = torch.distributions.Normal(decoded, 0.5).log_prob(pixels).sum(2)
    weights = log_likelihood + (prior.log_prob(latents) - posterior.log_prob(latents)).sum(2)
    expected = torch.logsumexp(weights, 0) - math.log(10)
    torch.testing.assert_close(result.log_likelihood, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        result.elbo, log_likelihood.mean(0) - result.kl, rtol=1e-5, atol=1e-5
    )


def test_a_bernoulli_is_measured_from_probabilities():
    logits = torch.randn(4, 3, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    bits = (torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(4)) < 0.5).float()
    expected = Bernoulli(logits=logits).log_prob(bits).sum((2, 3, 4))
    actual = log_likelihood_of({"family": "bernoulli"}, torch.sigmoid(logits), bits)
    torch.testing.assert_close(actual, expected)


def test_probabilities_of_0_and_1_stay_finite():
    decoded = torch.tensor([0.0, 1.0]).view(1, 1, 1, 1, 2)
    right, wrong = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    family = {"family": "bernoulli"}
    assert log_likelihood_of(family, decoded, right.view(1, 1, 1, 2)).item() == pytest.approx(
        0, abs=1e-5
    )
    assert log_likelihood_of(family, decoded, wrong.view(1, 1, 1, 2)).item() == pytest.approx(
        2 * math.log(1e-6), rel=1e-2
    )


def test_a_few_images_correct_the_bound_of_all(exact, image_data):
    exact.float()
    subject = Subject(exact, image_data)
    with torch.inference_mode():
        whole = log_likelihood_nats(subject, samples=8)
        part = log_likelihood_nats(subject, samples=8, images=20)
    # The posterior is exact: more samples gain nothing.
    assert part.value == pytest.approx(whole.value, abs=1e-3)
    assert (whole.samples, part.samples) == (60, 20)
    assert whole.value == pytest.approx(whole.baseline_value, abs=1e-3)
    assert part.baseline_value == whole.baseline_value
    assert "20 of them" in part.estimator
    assert "8 posterior samples" in part.estimator


def test_some_images_give_the_gain_by_more_samples(exact, image_data, monkeypatch):
    monkeypatch.setattr(likelihood, "LOG_LIKELIHOOD_SAMPLES", 2)
    exact.float()
    with torch.no_grad():
        exact.encoder.layers[0].bias[DIM:] += 2.0  # a posterior much wider than the exact one
    subject = Subject(exact, image_data)
    with torch.inference_mode():
        rough = log_likelihood_nats(subject, samples=2)
        whole = log_likelihood_nats(subject, samples=400)
        part = log_likelihood_nats(subject, samples=400, images=30)
    assert rough.value < whole.value - 1.0
    assert part.value == pytest.approx(whole.value, abs=0.5)


@pytest.mark.parametrize("model", [{}, BITS], ids=["gaussian", "bernoulli"])
def test_bounds_are_ordered_and_carry_their_interval(model, make_config, image_data):
    model = build_model(make_config("vae", model=model), image_data.image_shape)
    metrics = evaluate(model, image_data)
    assert metrics["test_elbo_nats"].value < metrics["test_log_likelihood_nats"].value
    subject = Subject(model, image_data)
    values = likelihood.measure_bounds(subject, likelihood.ELBO_SAMPLES).elbo
    half = 1.96 * values.std().item() / math.sqrt(60)
    assert f"95 % ±{half:.2g} " in metrics["test_elbo_nats"].estimator
    assert metrics["test_kl_nats"].value == pytest.approx(
        model.validation_losses(image_data.test, 0)["kl"], rel=0.05
    )


def test_test_images_are_binarised_once_and_declared(make_config, image_data):
    model = build_model(make_config("vae", model=BITS), image_data.image_shape)
    subject = Subject(model, image_data)
    bits = observed_test_images(subject)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    rows = torch.tensor([5, 3])
    assert torch.equal(observed_test_images(subject, rows), bits[rows])
    with torch.inference_mode():
        assert f"seed {NOISE_SEED}" in elbo_nats(subject).estimator
        assert "dequantised" not in elbo_nats(subject).estimator


def test_the_baseline_of_bits_is_a_bernoulli_per_pixel(make_config, image_data):
    model = build_model(make_config("vae", model=BITS), image_data.image_shape)
    subject = Subject(model, image_data)
    train, bits = to_float(image_data.all_train), observed_test_images(subject)
    coins = Bernoulli((train.double().sum(0) + 0.5) / (len(train) + 1))
    expected = coins.log_prob(bits.double()).flatten(1).sum(1)
    with torch.inference_mode():
        metric = log_likelihood_nats(subject, samples=2)
    assert metric.baseline_value == pytest.approx(expected.mean().item())
    assert metric.baseline_name == "independent pixels, log p(x)"


def test_a_pixel_that_is_never_set_has_a_probability_above_0():
    train = torch.zeros(9, 1, 1, 1, dtype=torch.uint8)
    values = independent_pixels_log_likelihood(train, np.array([[1.0], [0.0]]))
    np.testing.assert_allclose(values, np.log([0.05, 0.95]))


def test_with_a_latent_for_every_pixel_there_is_no_simpler_model(make_config, image_data):
    tiny = dataclasses.replace(
        image_data, **{part: getattr(image_data, part)[..., ::4, ::4] for part in PARTS}
    )
    fields = {"network": "mlp", "hidden": [5], "latent_dim": 9}
    subject = Subject(build_model(make_config("vae", model=fields), (1, 3, 3)), tiny)
    with torch.inference_mode():
        metric = log_likelihood_nats(subject, samples=2)
    assert (metric.baseline_name, metric.baseline_value) == (None, None)
    assert metric.beats_baseline is None


def test_active_units_are_those_whose_mean_moves(exact, image_data, capsys):
    exact.float()
    subject = Subject(exact, image_data)
    with torch.inference_mode():
        assert active_units(subject).value == DIM
    assert capsys.readouterr().err == ""
    with torch.no_grad():
        exact.encoder.layers[0].weight[:2] *= 1e-3  # their means hardly move now
    with torch.inference_mode():
        metric = active_units(subject)
    assert (metric.value, metric.unit) == (1, "of 3 latents")
    assert "warning: 2 of 3 latents are inactive" in capsys.readouterr().err


def test_likelihood_metrics_need_a_likelihood(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape)
    for metric in (elbo_nats, kl_nats, active_units):
        with pytest.raises(TypeError, match="posterior"):
            metric(Subject(model, dataclasses.replace(image_data, labels=None)))
