"""Gaussian mixture over latents: the prior of models that are trained without one.

    p(z) = Σ_k π_k N(z; μ_k, L_k L_kᵀ)

Parameters are rounded to the dtypes of the file, so that every reader computes with the same
values.
"""

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentserve_training.errors import CheckpointError

MIXTURE_FILE = "prior.npz"


@dataclass(frozen=True)
class LatentMixture:
    """Weights, means and lower Cholesky factors of the components."""

    weights: np.ndarray  # π: float64 [components], above 0, sum 1
    means: np.ndarray  # μ: float32 [components, d]
    factors: np.ndarray  # L: float32 [components, d, d], lower triangular, positive diagonals

    @property
    def components(self) -> int:
        """The number of components."""
        return len(self.weights)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample float32 ``[count, d]``, on the CPU: z = μ_k + L_k ε, k ~ π, ε ~ N(0, I)."""
        weights = torch.from_numpy(self.weights)
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator)
        latents = torch.from_numpy(self.means)[chosen]
        for component in range(self.components):
            rows = chosen == component
            latents[rows] += noise[rows] @ torch.from_numpy(self.factors[component]).T
        return latents

    def log_density(self, latents: Tensor) -> Tensor:
        """Log p(z) of latents ``[n, d]``, float64 ``[n]``, in nats."""
        rows = latents.double().T  # [d, n]
        by_component = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            lower = torch.from_numpy(factor).double()
            centred = rows - torch.from_numpy(mean).double()[:, None]
            whitened = torch.linalg.solve_triangular(lower, centred, upper=False)
            log_norm = lower.diagonal().log().sum() + 0.5 * len(rows) * math.log(2.0 * math.pi)
            by_component.append(math.log(weight) - log_norm - 0.5 * whitened.square().sum(0))
        return torch.stack(by_component).logsumexp(0)

    def to_bytes(self) -> bytes:
        """The npz file that the server reads; the same mixture gives the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, weights=self.weights, means=self.means, factors=self.factors)
        return buffer.getvalue()


def read_mixture(path: Path) -> LatentMixture:
    """Read a file written from :meth:`LatentMixture.to_bytes`.

    Raises:
        CheckpointError: If the file is missing or does not hold a mixture.
    """
    try:
        with np.load(path) as arrays:
            return LatentMixture(arrays["weights"], arrays["means"], arrays["factors"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); finish the run with train --resume"
        ) from error
