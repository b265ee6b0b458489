import numpy as np
import pytest
import scipy.linalg
import torch

from latentserve_training.metrics import frechet
from latentserve_training.metrics.frechet import frechet_distance


def features(count, seed, dim=6, scale=1.0, centre=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dim, dim))
    return torch.from_numpy(centre + scale * rng.normal(size=(count, dim)) @ mixing).float()


def by_matrix_root(first, second):
    first, second = first.double().numpy(), second.double().numpy()
    difference = first.mean(0) - second.mean(0)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root.real)


@pytest.mark.parametrize(("scale", "centre"), [(1.0, 0.0), (1.7, 0.0), (1.0, 3.0), (0.1, 50.0)])
def test_the_distance_is_that_of_the_matrix_root(scale, centre, monkeypatch):
    monkeypatch.setattr(frechet, "BATCH", 70)
    first, second = features(200, 0), features(150, 1, scale=scale, centre=centre)
    expected = by_matrix_root(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_the_distance_is_in_float64():
    """Far from the origin, float32 sums of squares would lose the covariance altogether."""
    first, second = features(300, 0, centre=1000.0), features(300, 1, centre=1000.0)
    expected = by_matrix_root(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-5)


def test_constant_features_do_not_change_the_distance():
    first, second = features(100, 0), features(100, 1)
    first[:, 2] = second[:, 2] = 0.0
    without = [torch.cat([each[:, :2], each[:, 3:]], dim=1) for each in (first, second)]
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(*without), rel=1e-6)


def test_a_set_has_no_distance_to_itself_and_more_noise_is_further():
    real = features(300, 0)
    assert frechet_distance(real, real) == pytest.approx(0.0, abs=1e-6)
    noise = features(300, 5)
    distances = [frechet_distance(real, real + level * noise) for level in (0.1, 0.3, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0
