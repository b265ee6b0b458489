import math

import numpy as np

from latentserve_client.noise import add_noise, psnr_db


def test_noise_depends_on_the_seed_alone():
    x = np.full((4, 1, 28, 28), 0.5, np.float32)
    noisy = add_noise(x, 0.1, seed=1)
    np.testing.assert_array_equal(noisy, add_noise(x, 0.1, seed=1))
    assert not np.array_equal(noisy, add_noise(x, 0.1, seed=2))
    assert noisy.dtype == np.float32
    assert abs(float((noisy - x).std()) - 0.1) < 0.01


def test_noise_is_clipped():
    noisy = add_noise(np.zeros((1, 28, 28)), 5, seed=0)
    assert noisy.min() == 0
    assert noisy.max() == 1


def test_psnr():
    assert psnr_db(np.zeros(4), np.full(4, 0.1)) == 20
    assert math.isinf(psnr_db(np.zeros(4), np.zeros(4)))
