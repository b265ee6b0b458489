"""The sampler of training against an independent implementation of docs/sampling.md."""

import numpy as np
import pytest

from latentserve_training.export.sampling import philox, sample_latents
from latentserve_training.nn.gaussian_mixture import LatentMixture
from reference_draw import PRIOR, mixture_row, normal_row


def test_the_generator_gives_the_known_answers_of_random123():
    assert philox(0, 0, 0) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


@pytest.mark.parametrize("dim", [1, 4, 6])
@pytest.mark.parametrize("seed", [0, 11, 2**64 - 1])
def test_a_standard_normal_prior_is_sampled_as_documented(seed, dim):
    expected = [normal_row(seed, PRIOR, row, dim) for row in range(5)]
    found = sample_latents(seed, 5, dim, None)
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("seed", [0, 11, 2**64 - 1])
def test_a_mixture_is_sampled_as_documented(seed):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(4))
    means = rng.normal(0, 5, (4, 3)).astype(np.float32)
    factors = np.tril(rng.normal(size=(4, 3, 3))).astype(np.float32)
    expected = [
        mixture_row(weights.tolist(), means.tolist(), factors.tolist(), seed, row)
        for row in range(20)
    ]
    found = sample_latents(seed, 20, 3, LatentMixture(weights, means, factors))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
