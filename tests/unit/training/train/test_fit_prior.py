import numpy as np
import pytest
import torch

from latentserve_training.config import SamplerConfig
from latentserve_training.errors import ConfigError
from latentserve_training.evaluate.suite import evaluate
from latentserve_training.train.fit_prior import (
    check_sampler,
    encode_images,
    fit_mixture,
    fit_sampler,
)
from latentserve_training.train.loop import build_model, train
from latentserve_training.train.run_folder import RunFolder

CENTRES = np.array([[0.0, 0.0, 5.0], [40.0, 0.0, 5.0], [0.0, 0.4, 5.0]])
SHARES = np.array([0.5, 0.3, 0.2])


def clusters(count, seed):
    """Latents in three clusters with very different scales per dimension."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, count, p=SHARES)
    noise = rng.normal(size=(count, 3)) @ np.array([[1.0, 0.02, 0], [0, 0.03, 0], [0, 0, 2.0]])
    return CENTRES[label] + noise


@pytest.fixture(scope="module")
def codes():
    return clusters(3000, 0)


def test_the_components_are_found(codes):
    mixture = fit_mixture(codes, 3, "full", seed=0)
    for centre, share in zip(CENTRES, SHARES, strict=True):
        nearest = np.abs((mixture.means - centre) / codes.std(0)).max(1).argmin()
        np.testing.assert_allclose(mixture.means[nearest], centre, atol=0.2)
        assert mixture.weights[nearest] == pytest.approx(share, abs=0.03)
        covariance = mixture.factors[nearest] @ mixture.factors[nearest].T
        expected = np.array([[1.0, 0.02, 0], [0.02, 0.0013, 0], [0, 0, 4.0]])
        # The variance that is added in the fit: a thousandth of that of all latents.
        expected += np.diag(1e-3 * codes.var(0))
        np.testing.assert_allclose(covariance, expected, atol=0.3, rtol=0.2)


def test_one_gaussian_has_the_mean_and_covariance_of_the_latents(codes):
    mixture = fit_mixture(codes, 1, "full", seed=0)
    np.testing.assert_allclose(mixture.means[0], codes.mean(0), rtol=1e-5, atol=1e-6)
    covariance = mixture.factors[0] @ mixture.factors[0].T
    expected = np.cov(codes.T, bias=True) + np.diag(1e-3 * codes.var(0))
    np.testing.assert_allclose(covariance, expected, rtol=1e-4, atol=1e-5)


def test_more_components_explain_held_out_latents_better(codes):
    held_out = torch.from_numpy(clusters(1000, 1))
    one, three = (
        fit_mixture(codes, count, "full", seed=0).log_density(held_out).mean() for count in (1, 3)
    )
    assert three > one + 1.0


def test_a_diagonal_covariance_has_diagonal_factors(codes):
    mixture = fit_mixture(codes, 3, "diagonal", seed=0)
    assert mixture.factors.shape == (3, 3, 3)
    assert not (mixture.factors * (1 - np.eye(3))).any()
    assert (np.diagonal(mixture.factors, axis1=1, axis2=2) > 0).all()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_fitted_mixture_is_valid_for_the_server(codes, covariance):
    mixture = fit_mixture(codes, 4, covariance, seed=1)
    types = [each.dtype.name for each in (mixture.weights, mixture.means, mixture.factors)]
    assert types == ["float64", "float32", "float32"]
    assert (mixture.weights > 0).all()
    assert mixture.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diagonal(mixture.factors, axis1=1, axis2=2) > 0).all()
    assert not np.triu(mixture.factors, 1).any()


def test_the_same_seed_gives_the_same_bytes(codes):
    first, again = (fit_mixture(codes, 3, "full", seed=2**40 + 7).to_bytes() for _ in range(2))
    assert first == again


def test_latents_that_never_change_get_a_narrow_gaussian(codes):
    dead = np.concatenate([codes, np.full((len(codes), 1), 3.0)], axis=1)
    mixture = fit_mixture(dead, 2, "full", seed=0)
    np.testing.assert_allclose(mixture.means[:, 3], 3.0)
    assert np.isfinite(mixture.factors).all()
    assert (mixture.factors[:, 3, 3] > 0).all()
    assert (mixture.factors[:, 3, 3] < 1e-3).all()


def test_equal_latents_are_refused():
    with pytest.raises(ConfigError, match="all images have the same latents"):
        fit_mixture(np.ones((10, 2)), 2, "full", seed=0)


def test_a_sampler_is_fitted_to_the_latents_of_the_images(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape).eval()
    config = SamplerConfig(components=2)
    mixture = fit_sampler(model, image_data.train, config, seed=3)
    codes = encode_images(model, image_data.train)
    assert codes.shape == (160, 3)
    assert mixture.to_bytes() == fit_mixture(codes.double().numpy(), 2, "full", 3).to_bytes()


def test_the_configured_number_of_images_is_used(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape).eval()
    allowed = SamplerConfig(components=1, max_fit_images=50)
    few, same, others = (
        fit_sampler(model, image_data.train, allowed, seed).to_bytes() for seed in (3, 3, 4)
    )
    everything = fit_sampler(model, image_data.train, SamplerConfig(components=1), seed=3)
    assert few == same
    assert few != others
    assert few != everything.to_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"components": -1}, "components must lie between 0"),
        ({"components": 1025}, "and 1024"),
        ({"max_fit_images": -1}, "max_fit_images"),
    ],
)
def test_impossible_samplers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(**fields)


@pytest.mark.parametrize("kind", ["autoencoder", "contractive", "denoising", "linear"])
def test_deterministic_kinds_may_have_a_sampler(kind, make_config, image_data):
    model, config = (
        build_model(make_config(kind), image_data.image_shape),
        SamplerConfig(components=2),
    )
    check_sampler(config, model, 160)
    model.eval().set_mixture(fit_sampler(model, image_data.train, config, seed=0))
    metric = evaluate(model, image_data)["test_code_log_likelihood_nats"]
    codes = encode_images(model, image_data.test)
    assert metric.value == pytest.approx(model.mixture.log_density(codes).mean().item())
    assert (metric.baseline_name, metric.samples) == ("one Gaussian", 60)
    operations = [operation for graph in model.graphs() for operation in graph.operations]
    assert "sample" in operations


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vae", "a model of kind vae already has a prior"),
        ("sparse", "a model of kind sparse cannot have one: most of its latents are exactly zero"),
    ],
)
def test_kinds_that_cannot_have_a_sampler_are_refused_before_training(
    kind, message, make_config, image_data, tmp_path
):
    config = make_config(kind, sampler={"components": 2})
    with pytest.raises(ConfigError, match=message):
        train(config, image_data, RunFolder(tmp_path))
    check_sampler(SamplerConfig(), build_model(config, image_data.image_shape), 160)


@pytest.mark.parametrize(
    ("config", "latents", "message"),
    [
        (SamplerConfig(components=161), 3, "161, more than the 160 latent vectors"),
        (SamplerConfig(components=60, max_fit_images=50), 3, "60, more than the 50 latent vectors"),
        (SamplerConfig(components=100), 300, "needs 9,000,000 parameters; the limit is 4,194,304"),
    ],
)
def test_too_few_images_and_too_many_parameters_are_refused(
    config, latents, message, make_config, image_data
):
    model = build_model(
        make_config("contractive", model={"latent_dim": latents}), image_data.image_shape
    )
    with pytest.raises(ConfigError, match=message):
        check_sampler(config, model, 160)
