"""Metrics of models with a likelihood: bounds of log p(x), KL and active units.

They use only values that an export provides as well: the posterior, the decoded images and the
likelihood in the manifest. A Bernoulli log p(x|z) is therefore computed from probabilities, not
from logits.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latentserve_training.evaluate.metric import BATCH, NOISE_SEED, Metric, MetricFunction, Subject
from latentserve_training.metrics.baselines import Array, to_rows
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.binarisation import static_bits
from latentserve_training.nn.losses import (
    gaussian_log_likelihood,
    importance_weighted_bound,
    kl_to_standard_normal,
    log_prior_over_posterior,
)
from latentserve_training.pixels import to_float

ELBO_SAMPLES = 16  # posterior samples per test image
LOG_LIKELIHOOD_SAMPLES = 64  # the same for log p(x) at the end of a run
DECODED_AT_ONCE = 1000  # images, over samples and test images; more do not fit into the cache
PROBABILITY_LIMIT = 1e-6  # decoded probabilities are clamped to this distance from 0 and 1
ACTIVE_VARIANCE = 1e-2  # Burda et al. 2015 (1509.00519): few latents are close to the threshold
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Bounds:
    """Bounds and KL of each test image in nats, float64 ``[n]``."""

    elbo: Tensor
    log_likelihood: Tensor  # the importance-weighted bound
    kl: Tensor


def bounds(model: LatentModel, images: Tensor, samples: int, generator: torch.Generator) -> Bounds:
    """Lower bounds of log p(x) from ``samples`` posterior samples for each image.

    Each image is encoded once; its samples are decoded in chunks, which bound the memory.

    Args:
        model: With a standard normal prior and a Gaussian or Bernoulli likelihood.
        images: Float ``[n, c, h, w]``; bits for a Bernoulli.
        samples: k. The ELBO uses the KL in closed form and the mean over the k samples; the other
            bound is the logarithm of the mean of the importance weights of the same samples.
        generator: Source of the samples.
    """
    mean, log_variance = model.posterior(images)
    if log_variance is None:
        raise TypeError(f"a model of kind {model.kind} has no posterior distribution")
    likelihood = model.likelihood()
    kl = kl_to_standard_normal(mean, log_variance).double()
    total: Tensor = torch.zeros(len(images), dtype=torch.float64)
    log_sum = torch.full((len(images),), -math.inf, dtype=torch.float64)
    remaining = samples
    while remaining > 0:
        count = min(remaining, max(1, DECODED_AT_ONCE // len(images)))
        remaining -= count
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        decoded = model.decode_unclipped(latents.flatten(0, 1))
        decoded = decoded.view(count, *images.shape)
        log_likelihood = log_likelihood_of(likelihood, decoded, images).double()
        total += log_likelihood.sum(0)
        weights = log_likelihood + log_prior_over_posterior(latents, mean, log_variance).double()
        log_sum = torch.logaddexp(log_sum, importance_weighted_bound(weights) + math.log(count))
    return Bounds(total / samples - kl, log_sum - math.log(samples), kl)


def log_likelihood_of(
    likelihood: dict[str, object] | None, decoded: Tensor, images: Tensor
) -> Tensor:
    """Log p(x|z) in nats, ``[k, n]``, of images ``[n, c, h, w]`` for means ``[k, n, c, h, w]``.

    Args:
        likelihood: As in a manifest.
        decoded: The mean of p(x|z).
        images: Bits, if the likelihood is a Bernoulli's.
    """
    if likelihood is None:
        raise TypeError("this metric needs a model with a likelihood")
    if likelihood["family"] == "gaussian":
        sigma = torch.tensor(likelihood["sigma"], dtype=torch.float64)
        repeated = images.expand_as(decoded).flatten(0, 1)
        log_likelihood = gaussian_log_likelihood(decoded.flatten(0, 1), sigma.log(), repeated)
        return log_likelihood.view(decoded.shape[:2])
    probabilities = torch.where(images > 0.5, decoded, 1.0 - decoded)
    limited = probabilities.clamp_(PROBABILITY_LIMIT, 1.0 - PROBABILITY_LIMIT)
    return limited.log_().flatten(2).sum(2)


def observed_test_images(subject: Subject, rows: Tensor | None = None) -> Tensor:
    """Test images as inputs of the likelihood: floats, or bits that are always the same.

    Args:
        subject: The model and its data.
        rows: Indices of test images; None for all.
    """
    images = to_float(subject.data.test if rows is None else subject.data.test[rows])
    return static_bits(images, NOISE_SEED) if is_bernoulli(subject.model) else images


def is_bernoulli(model: LatentModel) -> bool:
    """Whether the model has a Bernoulli likelihood."""
    return (model.likelihood() or {}).get("family") == "bernoulli"


def measure_bounds(subject: Subject, samples: int, rows: Tensor | None = None) -> Bounds:
    """:func:`bounds` over test images, with a progress bar."""
    images = observed_test_images(subject, rows)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    # Small batches if there are many samples: a chunk holds several of each, and the bar advances.
    at_once = BATCH if samples < BATCH else DECODED_AT_ONCE // 10
    batches = torch.split(images, at_once)
    description = f"{samples} samples per image"
    parts = [
        bounds(subject.model, batch, samples, generator)
        for batch in tqdm(batches, desc=description, unit="batch", leave=False, disable=None)
    ]
    return Bounds(
        torch.cat([part.elbo for part in parts]),
        torch.cat([part.log_likelihood for part in parts]),
        torch.cat([part.kl for part in parts]),
    )


def elbo_nats(subject: Subject, samples: int = ELBO_SAMPLES) -> Metric:
    """The evidence lower bound; baseline: the exact log-likelihood of a simpler model."""
    elbo = measure_bounds(subject, samples).elbo
    baseline_name, baseline_value = baseline_log_likelihood(subject)
    return Metric(
        value=float(elbo.mean()),
        unit="nats per image",
        higher_is_better=True,
        baseline_name=baseline_name,
        baseline_value=baseline_value,
        samples=len(elbo),
        estimator=(
            f"mean over the test images, 95 % ±{interval(elbo):.2g} over images, with {samples} "
            f"posterior samples each and the closed-form KL; {_condition(subject)}. The baseline "
            "is an exact log-likelihood, stronger than an ELBO, which cannot exceed it"
        ),
    )


def log_likelihood_nats(
    subject: Subject, samples: int = LOG_LIKELIHOOD_SAMPLES, images: int = 0
) -> Metric:
    """Log p(x) by importance sampling: the bound of Burda et al. 2015 (1509.00519), equation 8.

    Args:
        subject: The model and its data.
        samples: k, posterior samples per image.
        images: Number of test images; 0 for all. A smaller number is chosen at random, and the
            bound from few samples on all test images is corrected by the mean difference on these:
            the difference varies much less between images than log p(x).
    """
    test = subject.data.test
    baseline_name, baseline_value = baseline_log_likelihood(subject)
    if not 0 < images < len(test):
        values = measure_bounds(subject, samples).log_likelihood
        value, error, which = float(values.mean()), interval(values), "mean over the test images"
        count = len(test)
    else:
        generator = torch.Generator().manual_seed(NOISE_SEED)
        rows = torch.randperm(len(test), generator=generator)[:images]
        rough = measure_bounds(subject, LOG_LIKELIHOOD_SAMPLES).log_likelihood
        few = measure_bounds(subject, samples, rows).log_likelihood
        gain = few - rough[rows]
        value = float(rough.mean() + gain.mean())
        unseen_share = 1.0 - images / len(test)
        # Error of the mean over all test images, and of the gain, measured on some of them.
        error = math.hypot(
            interval(few) * math.sqrt(images / len(test)),
            interval(gain) * math.sqrt(unseen_share),
        )
        which = (
            f"that of all {len(test)} test images with {LOG_LIKELIHOOD_SAMPLES} samples, plus the "
            f"mean gain by more samples over {images} of them chosen at random"
        )
        count = images
    return Metric(
        value=value,
        unit="nats per image",
        higher_is_better=True,
        baseline_name=baseline_name,
        baseline_value=baseline_value,
        samples=count,
        estimator=(
            f"importance-weighted bound with {samples} posterior samples for each image, a lower "
            f"bound of log p(x); {which}, 95 % ±{error:.2g} over images (1.96 standard errors); "
            f"{_condition(subject)}"
        ),
    )


def kl_nats(subject: Subject) -> Metric:
    """KL(q(z|x) ‖ p(z)), an upper bound of the information in the latents about an image."""
    kl = torch.cat([kl_to_standard_normal(*each) for each in _posteriors(subject)]).double()
    return Metric(
        value=float(kl.mean()),
        unit="nats per image",
        higher_is_better=False,
        baseline_name=None,
        baseline_value=None,
        samples=len(kl),
        estimator=(
            f"closed form, mean over the test images, 95 % ±{interval(kl):.2g} over images; not "
            "better or worse by itself: a term of the ELBO"
        ),
    )


def active_units(subject: Subject) -> Metric:
    """The number of latents that differ between images; a warning if most do not."""
    means = torch.cat([mean for mean, _ in _posteriors(subject)]).double()
    latents = means.shape[1]
    active = int((means.var(0) > ACTIVE_VARIANCE).sum())
    if active < latents / 2:
        print(
            f"warning: {latents - active} of {latents} latents are inactive: their posterior is "
            "the prior for every image. To use them, set model.kl_warmup_steps or "
            "model.free_bits; otherwise lower model.latent_dim",
            file=sys.stderr,
        )
    return Metric(
        value=float(active),
        unit=f"of {latents} latents",
        higher_is_better=True,
        baseline_name=None,
        baseline_value=None,
        samples=len(means),
        estimator=(
            f"latents whose posterior mean has a variance above {ACTIVE_VARIANCE:g} over the test "
            "images (Burda et al. 2015)"
        ),
    )


def baseline_log_likelihood(subject: Subject) -> tuple[str | None, float | None]:
    """Name and mean, in nats per image, of the exact log-likelihood of a simpler model.

    None for a Gaussian with at least one latent per pixel: probabilistic PCA needs fewer.
    """
    if is_bernoulli(subject.model):
        bits = to_bit_rows(observed_test_images(subject))
        values = independent_pixels_log_likelihood(subject.data.all_train, bits)
        return "independent pixels, log p(x)", float(values.mean())
    dim, rows = subject.model.latent_dim, to_rows(subject.data.test)
    if dim >= rows.shape[1]:
        return None, None
    return f"exact pPCA-{dim} log p(x)", float(subject.pca.log_likelihood(rows, dim).mean())


def independent_pixels_log_likelihood(train: Tensor, bits: Array) -> Array:
    """Log-likelihood in nats of rows of bits ``[n, pixels]`` under independent Bernoulli pixels.

    The probabilities are the means of the pixels over ``train``, uint8 ``[n, c, h, w]``, and one
    additional grey image, without which a pixel that is never set would have probability 0.
    """
    total = train.flatten(1).sum(0, dtype=torch.int64).numpy() / 255.0
    probability = (total + 0.5) / (len(train) + 1)
    values: Array = bits @ np.log(probability) + (1.0 - bits) @ np.log1p(-probability)
    return values


def to_bit_rows(bits: Tensor) -> Array:
    """Float bits ``[n, c, h, w]`` to float64 rows ``[n, pixels]``."""
    rows: Array = bits.flatten(1).double().numpy()
    return rows


def interval(values: Tensor) -> float:
    """Half the width of a 95 % confidence interval of the mean, by the normal approximation."""
    return NORMAL_95 * float(values.std()) / math.sqrt(len(values))


def _posteriors(subject: Subject) -> list[tuple[Tensor, Tensor]]:
    pairs = []
    for images in torch.split(observed_test_images(subject), BATCH):
        mean, log_variance = subject.model.posterior(images)
        if log_variance is None:
            raise TypeError(f"a model of kind {subject.model.kind} has no posterior distribution")
        pairs.append((mean, log_variance))
    return pairs


def _condition(subject: Subject) -> str:
    if is_bernoulli(subject.model):
        return (
            "test images binarised once, a pixel set with its grey level as probability, seed "
            f"{NOISE_SEED}; decoded probabilities clamped to {PROBABILITY_LIMIT:g} from 0 and 1"
        )
    return "a density of [0, 1] pixels, not dequantised"


METRICS: dict[str, MetricFunction] = {
    "test_elbo_nats": elbo_nats,
    "test_log_likelihood_nats": log_likelihood_nats,
    "test_kl_nats": kl_nats,
    "test_active_units": active_units,
}
