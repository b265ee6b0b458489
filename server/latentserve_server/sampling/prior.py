"""Priors of latents: the standard normal distribution, or a Gaussian mixture per model.

Row r of a sample depends only on (seed, r, temperature) and the prior. docs/sampling.md is the
specification; in short, for a mixture:

* u = row r of the stream MIXTURE; the component c is the first one whose cumulative weight is
  above u.
* e = row r of the stream PRIOR, the same as for a standard-normal prior.
* latent = mean_c + temperature * (L_c e), in float64, then rounded to float32. L_c is the lower
  Cholesky factor of the covariance; L_c e is summed column by column.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import ManifestError
from latentserve_server.manifest.npz import opened_arrays, read_array
from latentserve_server.manifest.reader import Manifest
from latentserve_server.sampling import philox

# With this limit, samples at any temperature are finite in float32.
_MAX_MAGNITUDE = 1e30
_WEIGHT_SUM_TOLERANCE = 1e-6

LARGEST_LATENT = 10_000.0
"""Largest magnitude of a latent that clients may send, in standard deviations of the prior.

Samples at temperature 10 reach 70. Latents of 1e38 overflow in the decoder, and give NaN.
"""


class Prior(Protocol):
    """A distribution of latents with random access to the rows of a seed.

    Attributes:
        largest_latent: largest magnitude of a latent that clients may send.
    """

    largest_latent: float

    def sample(
        self, seed: int, *, offset: int, rows: int, temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Return rows `offset` to `offset + rows - 1` of a seed, float32 [rows, dim]."""


class StandardNormal:
    """N(0, I) in `dim` dimensions."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.largest_latent = LARGEST_LATENT

    def sample(
        self, seed: int, *, offset: int, rows: int, temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Return rows `offset` to `offset + rows - 1` of a seed, float32 [rows, dim]."""
        return philox.standard_normal(
            seed,
            philox.PRIOR,
            offset=offset,
            rows=rows,
            dim=self._dim,
            temperature=temperature,
        )


class GaussianMixture:
    """A mixture of Gaussians with full covariances.

    Args:
        weights: float64 [components], positive, sum 1.
        means: float32 [components, dim].
        factors: float32 [components, dim, dim], lower Cholesky factors of the covariances.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        means: NDArray[np.float32],
        factors: NDArray[np.float32],
    ) -> None:
        self._cumulative = np.cumsum(weights)
        self._means = means.astype(np.float64)
        # The standard deviation of a latent is the norm of its row of the factor.
        deviations = np.linalg.norm(factors.astype(np.float64), axis=2)
        scale = float(np.max(np.abs(self._means) + deviations))
        self.largest_latent = LARGEST_LATENT * scale
        # [column, component, row]: each step of `sample` reads contiguous memory.
        self._columns = np.ascontiguousarray(factors.transpose(2, 0, 1))

    def sample(
        self, seed: int, *, offset: int, rows: int, temperature: float = 1.0
    ) -> NDArray[np.float32]:
        """Return rows `offset` to `offset + rows - 1` of a seed, float32 [rows, dim]."""
        dim = self._means.shape[1]
        uniform = philox.uniform(seed, philox.MIXTURE, offset=offset, rows=rows)
        chosen = np.searchsorted(self._cumulative, uniform, side="right")
        # Because of rounding, the last cumulative weight may be slightly below 1.
        component = np.minimum(chosen, len(self._cumulative) - 1)
        noise = philox.standard_normal(seed, philox.PRIOR, offset=offset, rows=rows, dim=dim)
        wide_noise = noise.astype(np.float64)
        # Not a matrix product, because its order of additions depends on the library, the processor
        # and the number of rows. This order is part of the specification.
        deviation = np.zeros((rows, dim), dtype=np.float64)
        for column in range(dim):
            factor = self._columns[column][component, column:].astype(np.float64)
            deviation[:, column:] += factor * wide_noise[:, column, np.newaxis]
        latents = self._means[component] + temperature * deviation
        return latents.astype(np.float32)


def read_prior(manifest: Manifest) -> Prior | None:
    """Return the prior that the manifest names in `latent.prior`, None for "none".

    Raises ManifestError if the file of a mixture does not match the manifest.
    """
    if manifest.prior == "none":
        return None
    if manifest.mixture is None:
        return StandardNormal(manifest.latent_dim)
    components, dim = manifest.mixture.components, manifest.latent_dim
    with opened_arrays(manifest, manifest.mixture.file) as arrays:
        weights = read_array(arrays, "weights", np.float64, (components,))
        means = read_array(arrays, "means", np.float32, (components, dim))
        factors = read_array(arrays, "factors", np.float32, (components, dim, dim))
        _check_mixture(weights, means, factors)
    return GaussianMixture(weights, means, factors)


def check_golden_samples(manifest: Manifest, prior: Prior | None) -> float:
    """Repeat the golden samples; return the largest absolute difference, 0 without golden samples.

    The golden latents of `sample` are the rows of `golden.sample_seed` from row 0. Raises
    ManifestError if the difference exceeds the manifest's tolerance: then the exporter interprets
    the parameters of the prior in another way.
    """
    golden = manifest.golden
    if golden.sample_seed is None or prior is None:
        return 0.0
    (name,) = golden.inputs["sample"].values()
    with opened_arrays(manifest, golden.file) as arrays:
        expected = arrays[name]
        latents = prior.sample(golden.sample_seed, offset=0, rows=len(expected))
        if latents.shape != expected.shape:
            raise ValueError(f"{name} has shape {expected.shape}, expected {latents.shape}")
        difference = float(np.max(np.abs(latents - expected), initial=0.0))
    if not difference <= golden.tolerance:
        raise ManifestError(
            f"seed {golden.sample_seed} gives other latents than at export: {name} differs by "
            f"{difference:.2g}, but the tolerance is {golden.tolerance:g}"
        )
    return difference


def _check_mixture(
    weights: NDArray[np.float64], means: NDArray[np.float32], factors: NDArray[np.float32]
) -> None:
    for name, array in (("weights", weights), ("means", means), ("factors", factors)):
        # Comparisons with NaN are false, so NaN is refused, too.
        if not np.all(np.abs(array) <= _MAX_MAGNITUDE):
            raise ValueError(f"{name} must be finite, at most {_MAX_MAGNITUDE:g} in magnitude")
    if not np.all(weights > 0):
        raise ValueError(f"weights must be above 0, but the lowest is {weights.min():g}")
    if not abs((total := float(weights.sum())) - 1.0) <= _WEIGHT_SUM_TOLERANCE:
        raise ValueError(f"weights must add up to 1, but add up to {total:.9g}")
    if not np.all(np.diagonal(factors, axis1=1, axis2=2) > 0):
        raise ValueError("factors must have a positive diagonal")
    if np.any(np.triu(factors, 1)):
        raise ValueError("factors must be lower triangular")
