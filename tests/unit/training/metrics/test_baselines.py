import math

import numpy as np
import pytest
import torch

from latentserve_training.metrics import baselines
from latentserve_training.metrics.baselines import fit_pca, mean_row, to_rows


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 24))
    rows = 128 + 25 * rng.normal(size=(300, 4)) @ mixing + 4 * rng.normal(size=(300, 24))
    return torch.from_numpy(rows.clip(0, 255).astype(np.uint8)).reshape(300, 1, 4, 6)


def test_pca_reconstruction_equals_that_of_a_direct_svd(images):
    rows = to_rows(images)
    centred = rows - rows.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:3].T @ directions[:3] + rows.mean(0)

    actual = fit_pca(images).reconstruct(rows, 3)

    np.testing.assert_allclose(actual, expected, atol=1e-10)


def test_pca_variances_are_the_squared_singular_values(images):
    rows = to_rows(images)
    singular_values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    np.testing.assert_allclose(fit_pca(images).variances, singular_values**2 / 300, atol=1e-12)


def test_error_left_by_pca_is_the_sum_of_the_variances_left_out(images):
    pca, rows = fit_pca(images), to_rows(images)
    error = np.square(pca.reconstruct(rows, 5) - rows).sum(1).mean()
    assert error == pytest.approx(pca.variances[5:].sum())


def test_ppca_log_likelihood_equals_the_multivariate_normal(images):
    pca, rows = fit_pca(images), to_rows(images)
    sigma_squared = pca.noise_variance(4)
    # W of Tipping & Bishop 1999, equation 7, with R = I.
    weights = pca.directions[:, :4] * np.sqrt(pca.variances[:4] - sigma_squared)
    normal = torch.distributions.MultivariateNormal(
        torch.from_numpy(pca.mean),
        torch.from_numpy(weights @ weights.T + sigma_squared * np.eye(24)),
    )

    expected = normal.log_prob(torch.from_numpy(rows)).numpy()

    np.testing.assert_allclose(pca.log_likelihood(rows, 4), expected, rtol=1e-9)


def test_pixels_that_are_never_set_do_not_break_the_fit():
    images = torch.zeros(50, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 1, 1] = torch.arange(50)
    images[:, 0, 2, 3] = torch.arange(50) ** 2 % 251
    pca = fit_pca(images)
    assert (pca.variances >= 0).all()
    assert np.isfinite(pca.log_likelihood(to_rows(images), 1)).all()


@pytest.mark.parametrize("dim", [0, 24])
def test_ppca_needs_latents_and_noise(images, dim):
    with pytest.raises(ValueError, match="between 1 and 23"):
        fit_pca(images).noise_variance(dim)


def test_wiener_filter_beats_every_pca_projection_of_the_noise(images):
    pca, rows = fit_pca(images), to_rows(images)
    noisy = rows + 0.3 * np.random.default_rng(1).normal(size=rows.shape)

    filtered = np.square(pca.wiener_filter(noisy, 0.3) - rows).mean()

    assert filtered < np.square(noisy - rows).mean()
    assert filtered < min(np.square(pca.reconstruct(noisy, k) - rows).mean() for k in range(25))


def test_the_gain_of_the_wiener_filter_is_the_share_of_signal():
    # Two pixels, independent, of known variance: gains are λ / (λ + σ²), by hand.
    values = torch.tensor([[0, 100], [0, 150], [200, 100], [200, 150]], dtype=torch.uint8)
    pca = fit_pca(values.reshape(4, 1, 1, 2))
    noise_sigma = 0.2
    variance = (100 / 255) ** 2, (25 / 255) ** 2
    deviation = np.array([[0.1, 0.05]])

    filtered = pca.wiener_filter(pca.mean + deviation, noise_sigma) - pca.mean

    gains = [each / (each + noise_sigma**2) for each in variance]
    np.testing.assert_allclose(filtered, deviation * gains)
    assert math.isclose(pca.mean[0], 100 / 255)


@pytest.fixture
def smooth_images():
    """500 images of 200 pixels whose variance falls by a fifth from direction to direction."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    rows = 128 + 150 * rng.normal(size=(500, 200)) * 0.9 ** np.arange(200) @ directions.T
    return torch.from_numpy(rows.clip(0, 255).astype(np.uint8)).reshape(500, 1, 10, 20)


@pytest.fixture
def both_fits(smooth_images, monkeypatch):
    """The exact fit, and the fit for large images."""
    exact = fit_pca(smooth_images)
    monkeypatch.setattr(baselines, "EXACT_PIXELS", 199)
    monkeypatch.setattr(baselines, "LEADING_DIRECTIONS", 20)
    monkeypatch.setattr(baselines, "CHUNK_PIXELS", 200 * 70)
    return exact, fit_pca(smooth_images, 8)


def test_large_images_get_the_leading_directions_of_the_exact_fit(both_fits, smooth_images):
    exact, leading = both_fits
    assert leading.directions.shape == (200, 20)
    assert (exact.rest_directions, leading.rest_directions) == (0, 180)
    rows = to_rows(smooth_images)
    for dim in (1, 8, 20):
        errors = [np.square(pca.reconstruct(rows, dim) - rows).sum() for pca in both_fits]
        assert errors[0] <= errors[1] * (1 + 1e-12), "the exact one is the best there is"
        assert errors[1] == pytest.approx(errors[0], rel=1e-4)
    np.testing.assert_allclose(leading.variances, exact.variances[:20], rtol=1e-3)
    np.testing.assert_allclose(leading.directions.T @ leading.directions, np.eye(20), atol=1e-12)


def test_large_images_keep_the_variance_of_all_directions(both_fits, smooth_images):
    exact, leading = both_fits
    assert leading.variances.sum() + leading.rest_variance == pytest.approx(exact.variances.sum())
    for dim in (1, 8, 20):
        assert leading.noise_variance(dim) == pytest.approx(exact.noise_variance(dim), rel=1e-4)
        densities = [pca.log_likelihood(to_rows(smooth_images), dim).mean() for pca in both_fits]
        assert densities[1] == pytest.approx(densities[0], rel=1e-4)


def test_the_wiener_filter_of_large_images_is_nearly_the_exact_one(both_fits, smooth_images):
    rows = to_rows(smooth_images)
    noisy = rows + 0.3 * np.random.default_rng(1).normal(size=rows.shape)
    exact, leading = (np.square(pca.wiener_filter(noisy, 0.3) - rows).mean() for pca in both_fits)
    assert leading == pytest.approx(exact, rel=0.03)


def test_directions_that_are_not_computed_are_refused(both_fits, smooth_images):
    leading, rows = both_fits[1], to_rows(smooth_images)
    for measure in (leading.reconstruct, leading.log_likelihood):
        with pytest.raises(ValueError, match="only 20 directions are known, not 21"):
            measure(rows, 21)
    assert fit_pca(smooth_images, 60).directions.shape == (200, 60)


def test_fewer_images_than_directions_are_fitted_exactly(both_fits, smooth_images):
    few = smooth_images[:9]
    rows = to_rows(few)
    np.testing.assert_allclose(fit_pca(few).reconstruct(rows, 8), rows, atol=1e-9)


def test_the_mean_is_that_of_all_chunks(both_fits, smooth_images):
    np.testing.assert_allclose(mean_row(smooth_images), to_rows(smooth_images).mean(0))
