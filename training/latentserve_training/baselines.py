"""Exact linear baselines, fitted on the training images: PCA, probabilistic PCA, Wiener filter.

A figure says little alone. Each of these is the best of its (linear) family in closed form, so a
network that does not beat it has learned nothing that a linear map does not give for free.
All of it is float64: the eigenvalues span ten orders of magnitude.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
CHUNK_IMAGES = 5000  # bounds the memory of a float64 copy to 31 MB of 28×28 images


@dataclass(frozen=True)
class PCA:
    """The eigendecomposition of the pixels' covariance."""

    mean: Array  # [pixels]
    variances: Array  # [pixels], descending, 0 or more; of the population: divided by n
    directions: Array  # [pixels, pixels], one eigenvector per column

    def coordinates(self, images: Array, dim: int) -> Array:
        """Rows ``[n, pixels]`` along the first ``dim`` directions, ``[n, dim]``: PCA's codes."""
        coordinates: Array = (images - self.mean) @ self.directions[:, :dim]
        return coordinates

    def reconstruct(self, images: Array, dim: int) -> Array:
        """Project rows ``[n, pixels]`` onto the first ``dim`` directions and back."""
        basis = self.directions[:, :dim]
        projected: Array = (images - self.mean) @ basis @ basis.T + self.mean
        return projected

    def wiener_filter(self, noisy: Array, noise_sigma: float) -> Array:
        """The linear filter of least mean squared error for added white noise, then clipped.

        Wiener 1949: along each direction, the share of the variance that is signal,
        λ / (λ + σ²). Clipping to [0, 1] can only help, and half a decibel is what it brings on
        MNIST: the baseline may know the range of pixels, as the model does.

        Args:
            noisy: Rows ``[n, pixels]``, not clipped: clipping makes the noise depend on the image.
            noise_sigma: In the pixels' units.
        """
        gain = self.variances / (self.variances + noise_sigma**2)
        filtered = (noisy - self.mean) @ self.directions * gain @ self.directions.T + self.mean
        clipped: Array = np.clip(filtered, 0.0, 1.0)
        return clipped

    def log_likelihood(self, images: Array, dim: int) -> Array:
        """The log-likelihood of probabilistic PCA with ``dim`` latents, in nats per image, ``[n]``.

        Tipping & Bishop 1999 (JRSS B 61), equations 4, 7 and 8: p(x) = N(μ, WWᵀ + σ²I) at its
        maximum likelihood, where σ² is the mean of the variances that are left out.
        """
        pixels = len(self.mean)
        noise_variance = self.noise_variance(dim)
        model_variances = np.full(pixels, noise_variance)
        model_variances[:dim] = self.variances[:dim]
        coordinates = (images - self.mean) @ self.directions
        mahalanobis: Array = (coordinates**2 / model_variances).sum(1)
        log_determinant = np.log(model_variances).sum()
        constant = log_determinant + pixels * math.log(2.0 * math.pi)
        log_density: Array = -0.5 * (mahalanobis + constant)
        return log_density

    def noise_variance(self, dim: int) -> float:
        """σ² of probabilistic PCA with ``dim`` latents (Tipping & Bishop 1999, equation 8)."""
        if not 0 < dim < len(self.mean):
            raise ValueError(f"dim must lie between 1 and {len(self.mean) - 1}, not {dim}")
        return float(self.variances[dim:].mean())


def fit_pca(images: Tensor) -> PCA:
    """Fit to uint8 images ``[n, c, h, w]``, scaled to [0, 1]."""
    pixels = images[0].numel()
    total, products = np.zeros(pixels), np.zeros((pixels, pixels))
    for chunk in torch.split(images, CHUNK_IMAGES):
        rows = to_rows(chunk)
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / len(images)
    covariance = products / len(images) - np.outer(mean, mean)
    variances, directions = np.linalg.eigh(covariance)
    # Pixels that are never set have variance 0, which rounding makes slightly negative.
    return PCA(mean, np.maximum(variances[::-1], 0.0), np.ascontiguousarray(directions[:, ::-1]))


def to_rows(images: Tensor) -> Array:
    """uint8 images ``[n, c, h, w]`` to float64 rows ``[n, pixels]`` in [0, 1]."""
    rows: Array = images.flatten(1).numpy().astype(np.float64) / 255.0
    return rows
