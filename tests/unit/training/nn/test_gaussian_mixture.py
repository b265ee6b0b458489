import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from latentserve_training.errors import CheckpointError
from latentserve_training.nn.gaussian_mixture import LatentMixture, read_mixture

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-9, 0], [0, 1], [9, 0]], dtype=np.float32)
FACTORS = np.array(
    [[[1.0, 0], [0.5, 0.25]], [[0.2, 0], [0.1, 0.3]], [[0.9, 0], [-0.9, 0.1]]], dtype=np.float32
)


@pytest.fixture
def mixture():
    return LatentMixture(WEIGHTS, MEANS, FACTORS)


def test_the_density_is_that_of_scipy(mixture):
    points = np.random.default_rng(0).normal(0, 6, (40, 2))
    expected = sum(
        weight * multivariate_normal(mean, factor @ factor.T).pdf(points)
        for weight, mean, factor in zip(
            WEIGHTS, MEANS.astype(float), FACTORS.astype(float), strict=True
        )
    )
    found = mixture.log_density(torch.from_numpy(points))
    assert found.dtype == torch.float64
    near = expected > 1e-200  # further off, scipy's density is 0 and has no logarithm
    assert near.sum() > 10
    np.testing.assert_allclose(found.numpy()[near], np.log(expected[near]), rtol=1e-9)


def test_the_density_of_a_far_point_is_finite(mixture):
    assert math.isfinite(mixture.log_density(torch.full((1, 2), 1e4)).item())


def test_samples_have_the_means_and_covariances_of_the_components(mixture):
    drawn = mixture.sample(60_000, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32
    nearest = (drawn[:, None, :1] - torch.from_numpy(MEANS)[None, :, :1]).abs().argmin(1)[:, 0]
    for component in range(3):
        rows = drawn[nearest == component].double().numpy()
        assert len(rows) / 60_000 == pytest.approx(WEIGHTS[component], abs=0.01)
        np.testing.assert_allclose(rows.mean(0), MEANS[component], atol=0.05)
        covariance = FACTORS[component] @ FACTORS[component].T
        np.testing.assert_allclose(np.cov(rows.T), covariance, atol=0.05)


def test_the_same_generator_gives_the_same_samples(mixture):
    first, second, other = (mixture.sample(9, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_mixture_is_read_from_its_file(mixture, tmp_path):
    path = tmp_path / "prior.npz"
    path.write_bytes(mixture.to_bytes())
    again = read_mixture(path)
    for name in ("weights", "means", "factors"):
        before, after = getattr(mixture, name), getattr(again, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    assert again.components == 3
    assert again.to_bytes() == path.read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"spoiled"])
def test_a_missing_or_damaged_file_says_what_to_do(tmp_path, content):
    path = tmp_path / "prior.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"prior\.npz cannot be read.*train --resume"):
        read_mixture(path)


def test_a_file_of_other_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "prior.npz", weights=WEIGHTS)
    with pytest.raises(CheckpointError, match="means"):
        read_mixture(tmp_path / "prior.npz")
