"""Gaussian noise, and the peak signal-to-noise ratio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def add_noise(images: NDArray[Any], sigma: float, seed: int) -> NDArray[np.float32]:
    """Return images with Gaussian noise, clipped to [0, 1].

    `images` are floats in [0, 1] of any shape, and `sigma` is the standard deviation on that
    scale. The same seed gives the same noise.
    """
    noise = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    noisy: NDArray[np.float32] = images.astype(np.float32) + np.float32(sigma) * noise
    return noisy.clip(0, 1)


def psnr_db(images: NDArray[Any], clean: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio over all pixels, in dB; higher is cleaner.

    Both are floats in [0, 1] of the same shape. Infinite for equal images.
    """
    mse = float(np.mean(np.square(images.astype(np.float64) - clean.astype(np.float64))))
    return -10 * math.log10(mse) if mse else math.inf
