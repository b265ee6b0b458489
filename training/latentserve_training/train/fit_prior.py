"""Fits a Gaussian mixture to a model's codes, so that a deterministic autoencoder can sample.

An autoencoder learns where the codes of images lie, but not how often each place is visited; a
density fitted to the codes afterwards says so. Ghosh et al. 2020 (1903.12436), section 4, "ex-post
density estimation". The fit is expectation-maximisation (Dempster et al. 1977), scikit-learn's.
"""

import warnings
from typing import Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from latentserve_training.config import SamplerConfig
from latentserve_training.errors import ConfigError
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.gaussian_mixture import LatentMixture
from latentserve_training.pixels import to_float

MAX_FACTOR_VALUES = 2**22  # components · d²: the server's limit, 16 MB
MAX_ITERATIONS = 60
# Variance added to codes that were scaled to variance 1: no component shrinks onto a single code.
# Held-out codes of mnist-ae under 100 Gaussians: ten times as much costs half a nat.
REGULARISATION = 1e-3
MINIMUM_SCALE = 1e-6  # of a latent that never changes, beside the one that changes most
ENCODE_BATCH = 500


def check_sampler(config: SamplerConfig, model: LatentModel, train_images: int) -> None:
    """Refuse, before any training, a sampler that could not be fitted or served.

    Raises:
        ConfigError: If the kind has a prior already, or codes that are not Gaussian anywhere, or
            there are too few images or too many numbers.
    """
    if not config.components:
        return
    if model.prior != "none":
        raise ConfigError(
            f"[sampler]: a model of kind {model.kind} has a prior already; set sampler.components "
            "to 0"
        )
    if model.sampler_unsupported_reason:
        raise ConfigError(
            f"[sampler]: a model of kind {model.kind} cannot have one: "
            f"{model.sampler_unsupported_reason}; set sampler.components to 0"
        )
    codes = min(train_images, config.max_fit_images or train_images)
    if config.components > codes:
        raise ConfigError(
            f"sampler.components is {config.components}, more than the {codes} codes that it is "
            "fitted to"
        )
    values = config.components * model.latent_dim**2
    if values > MAX_FACTOR_VALUES:
        raise ConfigError(
            f"sampler.components = {config.components} with {model.latent_dim} latents makes "
            f"{values:,} numbers; {MAX_FACTOR_VALUES:,} at most"
        )


def fit_sampler(
    model: LatentModel, images: Tensor, config: SamplerConfig, seed: int, threads: int = 1
) -> LatentMixture:
    """Fit the mixture to the codes of images.

    Args:
        model: In evaluation mode, on the CPU.
        images: Of the training, uint8 ``[n, c, h, w]``.
        config: With at least one component.
        seed: Decides which images are used, and where the fit begins.
        threads: Of the linear algebra; the same number gives the same mixture.

    Raises:
        ConfigError: If all images have the same code.
    """
    if config.max_fit_images and config.max_fit_images < len(images):
        order = np.random.default_rng(seed).permutation(len(images))[: config.max_fit_images]
        images = images[torch.from_numpy(np.sort(order))]
    codes = encode_images(model, images).double().numpy()
    return fit_mixture(codes, config.components, config.covariance, seed, threads)


def encode_images(model: LatentModel, images: Tensor) -> Tensor:
    """The codes, ``[n, d]``, of uint8 images ``[n, c, h, w]``: means, where there are variances."""
    with torch.inference_mode():
        batches = torch.split(images, ENCODE_BATCH)
        return torch.cat([model.posterior(to_float(batch))[0] for batch in batches])


def fit_mixture(
    codes: np.ndarray,
    components: int,
    covariance: Literal["full", "diagonal"],
    seed: int,
    threads: int = 1,
) -> LatentMixture:
    """Fit by expectation-maximisation from k-means clusters.

    Args:
        codes: float64 ``[n, d]``, n at least ``components``.
        components: 1 or more; 1 is a single Gaussian.
        covariance: Of each component.
        seed: Of the clusters.
        threads: Of the linear algebra.

    Raises:
        ConfigError: If all codes are the same.
    """
    centre, scale = codes.mean(0), codes.std(0)
    if not scale.max() > 0:
        raise ConfigError("[sampler]: all images have the same code; train the model for longer")
    scale = np.maximum(scale, MINIMUM_SCALE * scale.max())
    fit = GaussianMixture(
        components,
        covariance_type="full" if covariance == "full" else "diag",
        reg_covar=REGULARISATION,
        max_iter=MAX_ITERATIONS,
        random_state=seed % 2**32,  # all that numpy's older generator takes
    )
    # The threads of k-means add up in the order in which they end: one gives one result.
    with (
        warnings.catch_warnings(),
        threadpool_limits(threads, user_api="blas"),
        threadpool_limits(1, user_api="openmp"),
    ):
        # The last iterations gain thousandths of a nat, so their end is no news.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit((codes - centre) / scale)
    if covariance == "full":
        factors = np.linalg.cholesky(fit.covariances_)
    else:
        factors = np.sqrt(fit.covariances_)[:, :, None] * np.eye(codes.shape[1])
    # Back from scaled codes: x = centre + scale · (m + L ε).
    return LatentMixture(
        weights=fit.weights_ / fit.weights_.sum(),
        means=(centre + scale * fit.means_).astype(np.float32),
        factors=(scale[:, None] * factors).astype(np.float32),
    )
