"""Fit of a Gaussian mixture to latents, as the prior of a deterministic autoencoder.

An autoencoder has no distribution over its latents; a density fitted after training provides one
to sample from. Ghosh et al. 2020 (1903.12436), section 4, "ex-post density estimation". The fit is
expectation-maximisation (Dempster et al. 1977) by scikit-learn.
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

MAX_FACTOR_VALUES = 2**22  # components · d²: the limit of the server, 16 MB
MAX_ITERATIONS = 60
# Variance added to latents scaled to variance 1, so that no component collapses to a single point.
# A value ten times larger costs half a nat on held-out latents of mnist-ae with 100 Gaussians.
REGULARISATION = 1e-3
MINIMUM_SCALE = 1e-6  # minimum scale of a latent, relative to the latent of largest scale
ENCODE_BATCH = 500


def check_sampler(config: SamplerConfig, model: LatentModel, train_images: int) -> None:
    """Check before training that the configured sampler can be fitted and served.

    Raises:
        ConfigError: If the kind already has a prior or does not support a sampler, or if there are
            too few images or too many parameters.
    """
    if not config.components:
        return
    if model.prior != "none":
        raise ConfigError(
            f"[sampler]: a model of kind {model.kind} already has a prior; set sampler.components "
            "to 0"
        )
    if model.sampler_unsupported_reason:
        raise ConfigError(
            f"[sampler]: a model of kind {model.kind} cannot have one: "
            f"{model.sampler_unsupported_reason}; set sampler.components to 0"
        )
    vectors = min(train_images, config.max_fit_images or train_images)
    if config.components > vectors:
        raise ConfigError(
            f"sampler.components is {config.components}, more than the {vectors} latent vectors "
            "that the mixture is fitted to"
        )
    values = config.components * model.latent_dim**2
    if values > MAX_FACTOR_VALUES:
        raise ConfigError(
            f"sampler.components = {config.components} with {model.latent_dim} latents needs "
            f"{values:,} parameters; the limit is {MAX_FACTOR_VALUES:,}"
        )


def fit_sampler(
    model: LatentModel, images: Tensor, config: SamplerConfig, seed: int, threads: int = 1
) -> LatentMixture:
    """Fit the mixture to the latents of images.

    Args:
        model: In evaluation mode, on the CPU.
        images: Training images, uint8 ``[n, c, h, w]``.
        config: With at least one component.
        seed: Determines which images are used and the start of the fit.
        threads: Threads of the linear algebra; the result is reproducible for the same number.

    Raises:
        ConfigError: If all images have the same latents.
    """
    if config.max_fit_images and config.max_fit_images < len(images):
        order = np.random.default_rng(seed).permutation(len(images))[: config.max_fit_images]
        images = images[torch.from_numpy(np.sort(order))]
    latents = encode_images(model, images).double().numpy()
    return fit_mixture(latents, config.components, config.covariance, seed, threads)


def encode_images(model: LatentModel, images: Tensor) -> Tensor:
    """Latents (posterior means) ``[n, d]`` of uint8 images ``[n, c, h, w]``."""
    with torch.inference_mode():
        batches = torch.split(images, ENCODE_BATCH)
        return torch.cat([model.posterior(to_float(batch))[0] for batch in batches])


def fit_mixture(
    latents: np.ndarray,
    components: int,
    covariance: Literal["full", "diagonal"],
    seed: int,
    threads: int = 1,
) -> LatentMixture:
    """Fit by expectation-maximisation from k-means clusters.

    Args:
        latents: float64 ``[n, d]``, n at least ``components``.
        components: 1 or more; 1 is a single Gaussian.
        covariance: Form of the covariance of each component.
        seed: Seed of the clusters.
        threads: Threads of the linear algebra.

    Raises:
        ConfigError: If all latent vectors are equal.
    """
    centre, scale = latents.mean(0), latents.std(0)
    if not scale.max() > 0:
        raise ConfigError("[sampler]: all images have the same latents; train the model for longer")
    scale = np.maximum(scale, MINIMUM_SCALE * scale.max())
    fit = GaussianMixture(
        components,
        covariance_type="full" if covariance == "full" else "diag",
        reg_covar=REGULARISATION,
        max_iter=MAX_ITERATIONS,
        random_state=seed % 2**32,  # range of seeds of numpy's legacy generator
    )
    # k-means sums in the order in which its threads end: one thread makes it reproducible.
    with (
        warnings.catch_warnings(),
        threadpool_limits(threads, user_api="blas"),
        threadpool_limits(1, user_api="openmp"),
    ):
        # The last iterations gain thousandths of a nat, so a stop before convergence is harmless.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit((latents - centre) / scale)
    if covariance == "full":
        factors = np.linalg.cholesky(fit.covariances_)
    else:
        factors = np.sqrt(fit.covariances_)[:, :, None] * np.eye(latents.shape[1])
    # Back from scaled latents: z = centre + scale · (m + L ε).
    return LatentMixture(
        weights=fit.weights_ / fit.weights_.sum(),
        means=(centre + scale * fit.means_).astype(np.float32),
        factors=(scale[:, None] * factors).astype(np.float32),
    )
