"""Linear baselines, fitted to the training images: PCA, probabilistic PCA, Wiener filter.

A metric needs a baseline for comparison. Each of these is the optimum of its linear family in
closed form, so a network that is not better gains nothing over a linear map. All computations are
in float64, because the eigenvalues span ten orders of magnitude.

The covariance of large images is too large to decompose: above ``EXACT_PIXELS`` only the leading
directions are computed, and of the other variances only their sum.
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
EXACT_PIXELS = 3 * 32 * 32  # values per image, including channels
# Directions for images above that size, or the latents of the model if these are more.
LEADING_DIRECTIONS = 256
EXTRA_DIRECTIONS = 16  # iterated and then dropped, because the last directions converge slowly
PASSES = 8  # passes over all images
BASIS_SEED = 0


@dataclass(frozen=True)
class PCA:
    """Eigendecomposition of the covariance of the pixels."""

    mean: Array  # [pixels]
    # [directions], descending, 0 or more; divided by n, not by n - 1
    variances: Array
    directions: Array  # [pixels, directions], one eigenvector per column
    rest_variance: float = 0.0  # sum of the variances in all other directions

    @property
    def rest_directions(self) -> int:
        """The number of directions that are not computed: 0 unless the images are large."""
        return len(self.mean) - len(self.variances)

    def coordinates(self, images: Array, dim: int) -> Array:
        """Rows ``[n, pixels]`` in the first ``dim`` directions, ``[n, dim]``: latents of PCA.

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
        """The linear filter of least mean squared error for additive white noise, then clipped.

        Wiener 1949: the gain in each direction is the share of the signal in the variance,
        λ / (λ + σ²). Clipping to [0, 1] cannot increase the error and gains half a decibel on
        MNIST; the model has the same range of pixels. Directions that are not computed are assumed
        to have equal variances.

        Args:
            noisy: Rows ``[n, pixels]``, not clipped: clipping makes the noise depend on the image.
            noise_sigma: In the units of the pixels.
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
        maximum likelihood, where σ² is the mean of the other variances.
        """
        pixels = len(self.mean)
        noise_variance = self.noise_variance(dim)
        centred = images - self.mean
        squared = np.square(centred @ self.directions[:, :dim])
        # All other directions have the same variance, so only the total length in them is needed.
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
        images: Images to fit to.
        dim: Directions to compute, at most one per pixel; all are computed for images of at most
            ``EXACT_PIXELS``.
    """
    pixels = images[0].numel()
    if pixels > EXACT_PIXELS:
        return _fit_leading(images, min(max(dim, LEADING_DIRECTIONS), pixels))
    mean, products = mean_row(images), np.zeros((pixels, pixels))
    for rows in _chunks(images):
        products += rows.T @ rows
    covariance = products / len(images) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    # Pixels that are always 0 have variance 0, which rounding can make slightly negative.
    return PCA(mean, np.maximum(variances[::-1], 0.0), np.ascontiguousarray(directions[:, ::-1]))


def mean_row(images: Tensor) -> Array:
    """The mean of uint8 images ``[n, c, h, w]``, scaled to [0, 1], ``[pixels]``."""
    total = np.zeros(images[0].numel())
    for rows in _chunks(images):
        total += rows.sum(0)
    return total / len(images)


def _fit_leading(images: Tensor, dim: int) -> PCA:
    """Subspace iteration from a random start (Halko et al. 2011, 0909.4061, algorithm 4.4).

    The covariance is only used in products, chunk by chunk, so no array larger than
    ``[pixels, dim]`` is kept. The directions of largest variance converge first.
    """
    mean = mean_row(images)
    start = (len(mean), min(dim + EXTRA_DIRECTIONS, len(mean)))
    basis = np.linalg.qr(np.random.default_rng(BASIS_SEED).normal(size=start))[0]
    for _ in range(PASSES - 1):
        basis = np.linalg.qr(_covariance_times(basis, images, mean))[0]
    # Rayleigh-Ritz: eigenvectors of the covariance restricted to the basis.
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
