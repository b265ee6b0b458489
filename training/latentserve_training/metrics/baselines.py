"""Exact linear baselines, fitted on the training images: PCA, probabilistic PCA, Wiener filter.

A figure says little alone. Each of these is the best of its (linear) family in closed form, so a
network that does not beat it has learned nothing that a linear map does not give for free.
All of it is float64: the eigenvalues span ten orders of magnitude.

The covariance of large images is too big to decompose: above ``EXACT_PIXELS`` only the leading
directions are found, and the variance of the others is known as a sum.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
CHUNK_PIXELS = 5000 * 784  # bounds the memory of a float64 copy to 31 MB
EXACT_PIXELS = 3 * 32 * 32  # channels included
# Above that: so many directions, or as many as the model has numbers per image, if those are more.
LEADING_DIRECTIONS = 256
EXTRA_DIRECTIONS = 16  # iterated as well and then dropped: the last ones converge slowly
PASSES = 8  # over all images
BASIS_SEED = 0


@dataclass(frozen=True)
class PCA:
    """The eigendecomposition of the pixels' covariance."""

    mean: Array  # [pixels]
    # [directions], descending, 0 or more; of the population: divided by n
    variances: Array
    directions: Array  # [pixels, directions], one eigenvector per column
    rest_variance: float = 0.0  # sum of the variances in all other directions, if there are any

    @property
    def rest_directions(self) -> int:
        """How many directions are not known one by one: 0 unless the images are large."""
        return len(self.mean) - len(self.variances)

    def coordinates(self, images: Array, dim: int) -> Array:
        """Rows ``[n, pixels]`` along the first ``dim`` directions, ``[n, dim]``: PCA's codes.

        Raises:
            ValueError: If fewer directions are known.
        """
        self._require(dim)
        coordinates: Array = (images - self.mean) @ self.directions[:, :dim]
        return coordinates

    def reconstruct(self, images: Array, dim: int) -> Array:
        """Project rows ``[n, pixels]`` onto the first ``dim`` directions and back.

        Raises:
            ValueError: If fewer directions are known.
        """
        self._require(dim)
        basis = self.directions[:, :dim]
        projected: Array = (images - self.mean) @ basis @ basis.T + self.mean
        return projected

    def wiener_filter(self, noisy: Array, noise_sigma: float) -> Array:
        """The linear filter of least mean squared error for added white noise, then clipped.

        Wiener 1949: along each direction, the share of the variance that is signal,
        λ / (λ + σ²). Clipping to [0, 1] can only help, and half a decibel is what it brings on
        MNIST: the baseline may know the range of pixels, as the model does. Directions that are not
        known one by one share their variance equally.

        Args:
            noisy: Rows ``[n, pixels]``, not clipped: clipping makes the noise depend on the image.
            noise_sigma: In the pixels' units.
        """
        gain = self.variances / (self.variances + noise_sigma**2)
        rest = self.rest_variance / self.rest_directions if self.rest_directions else 0.0
        rest_gain = rest / (rest + noise_sigma**2)
        centred = noisy - self.mean
        filtered = centred @ self.directions * (gain - rest_gain) @ self.directions.T
        filtered += rest_gain * centred + self.mean
        clipped: Array = np.clip(filtered, 0.0, 1.0)
        return clipped

    def log_likelihood(self, images: Array, dim: int) -> Array:
        """The log-likelihood of probabilistic PCA with ``dim`` latents, in nats per image, ``[n]``.

        Tipping & Bishop 1999 (JRSS B 61), equations 4, 7 and 8: p(x) = N(μ, WWᵀ + σ²I) at its
        maximum likelihood, where σ² is the mean of the variances that are left out.
        """
        pixels = len(self.mean)
        noise_variance = self.noise_variance(dim)
        centred = images - self.mean
        squared = np.square(centred @ self.directions[:, :dim])
        # All other directions have the same variance, so the length outside the first is enough.
        outside = np.square(centred).sum(1) - squared.sum(1)
        mahalanobis: Array = (squared / self.variances[:dim]).sum(1) + outside / noise_variance
        log_determinant = np.log(self.variances[:dim]).sum()
        log_determinant += (pixels - dim) * math.log(noise_variance)
        constant = log_determinant + pixels * math.log(2.0 * math.pi)
        log_density: Array = -0.5 * (mahalanobis + constant)
        return log_density

    def noise_variance(self, dim: int) -> float:
        """σ² of probabilistic PCA with ``dim`` latents (Tipping & Bishop 1999, equation 8)."""
        if not 0 < dim < len(self.mean):
            raise ValueError(f"dim must lie between 1 and {len(self.mean) - 1}, not {dim}")
        self._require(dim)
        outside = float(self.variances[dim:].sum()) + self.rest_variance
        return outside / (len(self.mean) - dim)

    def _require(self, dim: int) -> None:
        if dim > len(self.variances):
            raise ValueError(f"only {len(self.variances)} directions are known, not {dim}")


def fit_pca(images: Tensor, dim: int = LEADING_DIRECTIONS) -> PCA:
    """Fit to uint8 images ``[n, c, h, w]``, scaled to [0, 1].

    Args:
        images: All that the fit may see.
        dim: How many directions must be known, at most as many as there are pixels; images of at
            most ``EXACT_PIXELS`` have all of them.
    """
    pixels = images[0].numel()
    if pixels > EXACT_PIXELS:
        return _fit_leading(images, min(max(dim, LEADING_DIRECTIONS), pixels))
    mean, products = mean_row(images), np.zeros((pixels, pixels))
    for rows in _chunks(images):
        products += rows.T @ rows
    covariance = products / len(images) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    # Pixels that are never set have variance 0, which rounding makes slightly negative.
    return PCA(mean, np.maximum(variances[::-1], 0.0), np.ascontiguousarray(directions[:, ::-1]))


def mean_row(images: Tensor) -> Array:
    """The mean of uint8 images ``[n, c, h, w]``, scaled to [0, 1], ``[pixels]``."""
    total = np.zeros(images[0].numel())
    for rows in _chunks(images):
        total += rows.sum(0)
    return total / len(images)


def _fit_leading(images: Tensor, dim: int) -> PCA:
    """Subspace iteration from a random start (Halko et al. 2011, 0909.4061, algorithm 4.4).

    The covariance is only ever multiplied with, chunk by chunk, so nothing larger than
    ``[pixels, dim]`` is kept. Directions of much variance converge first: those that matter.
    """
    mean = mean_row(images)
    start = (len(mean), min(dim + EXTRA_DIRECTIONS, len(mean)))
    basis = np.linalg.qr(np.random.default_rng(BASIS_SEED).normal(size=start))[0]
    for _ in range(PASSES - 1):
        basis = np.linalg.qr(_covariance_times(basis, images, mean))[0]
    # Rayleigh and Ritz: the eigenvectors of the covariance within the basis.
    variances, rotation = np.linalg.eigh(basis.T @ _covariance_times(basis, images, mean))
    variances = np.maximum(variances[::-1][:dim], 0.0)
    total = sum(float(np.square(rows - mean).sum()) for rows in _chunks(images)) / len(images)
    rest = max(total - float(variances.sum()), 0.0)
    return PCA(mean, variances, basis @ rotation[:, ::-1][:, :dim], rest)


def _covariance_times(basis: Array, images: Tensor, mean: Array) -> Array:
    product = np.zeros_like(basis)
    for rows in _chunks(images):
        centred = rows - mean
        product += centred.T @ (centred @ basis)
    return product / len(images)


def _chunks(images: Tensor) -> Iterator[Array]:
    for chunk in torch.split(images, max(1, CHUNK_PIXELS // images[0].numel())):
        yield to_rows(chunk)


def to_rows(images: Tensor) -> Array:
    """uint8 images ``[n, c, h, w]`` to float64 rows ``[n, pixels]`` in [0, 1]."""
    rows: Array = images.flatten(1).numpy().astype(np.float64) / 255.0
    return rows
