"""Metrics of reconstructions: squared error and PSNR, with exact linear baselines."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from latentserve_training.evaluate.metric import (
    NOISE_SEED,
    Metric,
    MetricFunction,
    Subject,
    mean_squared_error,
)
from latentserve_training.metrics.baselines import to_rows
from latentserve_training.models.denoising import DenoisingAutoencoder
from latentserve_training.models.linear import LinearAutoencoder

AT_LEVEL = "_at_"
CORRUPTIONS = {
    "masking": "set to 0",
    "salt_and_pepper": "set to 0 or 1 with equal probability",
}


def reconstruction_mse(subject: Subject) -> Metric:
    """Squared error per pixel of the served reconstruction."""
    return _mse_beside_pca(subject, subject.model.reconstruct, "")


def unclipped_mse(subject: Subject) -> Metric:
    """Squared error per pixel of a linear model before its output is clipped to [0, 1]."""
    model = subject.model
    if not isinstance(model, LinearAutoencoder):
        raise TypeError("this metric needs a linear autoencoder")
    return _mse_beside_pca(
        subject,
        lambda images: model.decode_unclipped(model.encode(images)),
        ", before the output is clipped to [0, 1]; that of PCA is not clipped either",
    )


def denoising_psnr_db(subject: Subject, level: float | None = None) -> Metric:
    """PSNR of denoised images; Gaussian noise is not clipped to [0, 1].

    Args:
        subject: A denoising model and its images.
        level: σ or ν of the test noise; None for that of the model.
    """
    model = denoising_model(subject)
    level = model.level if level is None else level
    clean, noisy, denoised = _denoise(subject, level, clipped=False)
    baseline_name, baseline = denoising_baseline(subject, noisy, level)
    if model.corruption == "gaussian":
        condition = (
            f"white noise of σ {level:g} added to [0, 1] pixels, not clipped, seed {NOISE_SEED}; "
            "the baseline's output is clipped"
        )
    else:
        condition = (
            f"a share of {level:g} of the pixels {CORRUPTIONS[model.corruption]}, seed {NOISE_SEED}"
        )
    return Metric(
        value=psnr_db(denoised, clean),
        unit="dB",
        higher_is_better=True,
        baseline_name=baseline_name,
        baseline_value=psnr_db(baseline, clean),
        samples=len(clean),
        estimator=f"peak 1, mean squared error over all test images; {condition}",
    )


def denoising_psnr_clipped_input_db(subject: Subject, level: float | None = None) -> Metric | None:
    """PSNR of denoised images whose noisy pixels were clipped to [0, 1], as in a PNG.

    None for a corruption that stays in [0, 1] without clipping.
    """
    model = denoising_model(subject)
    if model.corruption != "gaussian":
        return None
    level = model.level if level is None else level
    clean, noisy, denoised = _denoise(subject, level, clipped=True)
    return Metric(
        value=psnr_db(denoised, clean),
        unit="dB",
        higher_is_better=True,
        baseline_name="clipped noise",
        baseline_value=psnr_db(noisy, clean),
        samples=len(clean),
        estimator=(
            f"peak 1, mean squared error over all test images; white noise of σ {level:g} added to "
            f"[0, 1] pixels, then clipped to [0, 1], seed {NOISE_SEED}"
        ),
    )


def denoising_baseline(subject: Subject, noisy: np.ndarray, level: float) -> tuple[str, np.ndarray]:
    """Name and output of the baseline for denoising the rows ``[n, pixels]``.

    The Wiener filter uses the noise level, which the model does not get.
    """
    model = denoising_model(subject)
    if model.corruption == "gaussian":
        filtered = subject.pca.wiener_filter(noisy, level)
        basis = "the PCA basis"
        if subject.pca.rest_directions:
            basis = f"{len(subject.pca.variances)} PCA directions"
        return f"Wiener filter in {basis}", filtered
    return "the corrupted images", noisy


def psnr_db(images: np.ndarray, reference: np.ndarray) -> float:
    """10 log₁₀(1 / MSE) with the mean squared error over all images together."""
    return float(-10.0 * np.log10(np.square(images - reference).mean()))


def _mse_beside_pca(
    subject: Subject, reconstruct: Callable[[Tensor], Tensor], condition: str
) -> Metric:
    dim, rows = subject.model.nonzero_latents_per_image, to_rows(subject.data.test)
    estimator = f"mean over all pixels of all test images, in the units of [0, 1] pixels{condition}"
    baseline = None
    # With one latent per pixel PCA reproduces the image and is no baseline.
    if dim < rows.shape[1]:
        baseline = float(np.square(subject.pca.reconstruct(rows, dim) - rows).mean())
        estimator += f"; baseline: PCA with {dim} latents, fitted to the training images"
    return Metric(
        value=mean_squared_error(subject, reconstruct),
        unit="squared error per pixel",
        higher_is_better=False,
        baseline_name=None if baseline is None else f"PCA-{dim}",
        baseline_value=baseline,
        samples=len(rows),
        estimator=estimator,
    )


def denoising_model(subject: Subject) -> DenoisingAutoencoder:
    """The model of the subject, which must be a denoising autoencoder."""
    if not isinstance(subject.model, DenoisingAutoencoder):
        raise TypeError("this metric needs a denoising autoencoder")
    return subject.model


def metric_at_level(name: str) -> MetricFunction:
    """The metric function of a name with a noise level, such as ``test_psnr_db_at_0.2``.

    Raises:
        KeyError: If the name without the level is not in :data:`METRICS_AT_LEVELS`.
    """
    stem, _, level = name.rpartition(AT_LEVEL)
    return functools.partial(METRICS_AT_LEVELS[stem], level=float(level))


def _denoise(
    subject: Subject, level: float, clipped: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean, noisy and denoised test images as float64 rows."""
    model = denoising_model(subject)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    rows: tuple[list[np.ndarray], ...] = ([], [], [])
    for images in subject.test_batches():
        noisy = model.corrupt(images, generator, level)
        noisy = noisy.clamp(0.0, 1.0) if clipped else noisy
        for kept, batch in zip(rows, (images, noisy, model.reconstruct(noisy)), strict=True):
            kept.append(batch.flatten(1).double().numpy())
    clean, noisy_rows, denoised = (np.concatenate(kept) for kept in rows)
    return clean, noisy_rows, denoised


METRICS_AT_LEVELS: dict[str, Callable[..., Metric | None]] = {
    "test_psnr_db": denoising_psnr_db,
    "test_psnr_clipped_input_db": denoising_psnr_clipped_input_db,
}

METRICS: dict[str, MetricFunction] = {
    "test_mse": reconstruction_mse,
    "test_mse_unclipped": unclipped_mse,
    **METRICS_AT_LEVELS,
}
