"""Measures a trained model on the test images, each figure beside its baseline.

A model names the metrics that suit its kind (``LatentModel.metrics``); ``METRICS`` computes them.
Baselines are fitted on all training images, the validation images included: they see no less than
the model did.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentserve_training.baselines import PCA, fit_pca, to_rows
from latentserve_training.data import ImageData, to_float
from latentserve_training.models.base import LatentModel
from latentserve_training.models.denoising import DenoisingAutoencoder
from latentserve_training.models.vae import VAE

BATCH = 500
NOISE_SEED = 1234  # of the test noise: figures of two runs differ by their models alone
ELBO_SAMPLES = 16  # latents drawn per test image


@dataclass(frozen=True)
class Metric:
    """One figure beside its baseline, and how both came about."""

    value: float
    unit: str
    higher_is_better: bool
    baseline_name: str
    baseline_value: float
    samples: int
    estimator: str

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's form."""
        plain = asdict(self)
        name, value = plain.pop("baseline_name"), plain.pop("baseline_value")
        return plain | {"baseline": {"name": name, "value": value}}

    @property
    def beats_baseline(self) -> bool:
        """Whether the model is better."""
        difference = self.value - self.baseline_value
        return difference > 0 if self.higher_is_better else difference < 0


@dataclass(frozen=True)
class Subject:
    """A model and what it is measured with."""

    model: LatentModel
    data: ImageData

    @cached_property
    def pca(self) -> PCA:
        """Fitted once, on first use: it takes some seconds for 60,000 images."""
        return fit_pca(self.data.all_train)

    def test_batches(self) -> Iterator[Tensor]:
        """Float test images ``[n, c, h, w]``."""
        for batch in torch.split(self.data.test, BATCH):
            yield to_float(batch)


def evaluate(model: LatentModel, data: ImageData) -> dict[str, Metric]:
    """Compute the model's metrics; the model is left in evaluation mode, on the CPU."""
    model.eval().cpu()
    subject = Subject(model, data)
    with torch.inference_mode():
        return {name: METRICS[name](subject) for name in model.metrics}


def reconstruction_mse(subject: Subject) -> Metric:
    """Squared error per pixel of the reconstruction."""
    model, test = subject.model, subject.data.test
    error = 0.0
    for images in subject.test_batches():
        error += float((model.reconstruct(images) - images).double().square().sum())
    rows = to_rows(test)
    baseline = np.square(subject.pca.reconstruct(rows, model.latent_dim) - rows).mean()
    return Metric(
        value=error / test.numel(),
        unit="squared error per pixel",
        higher_is_better=False,
        baseline_name=f"PCA-{model.latent_dim}",
        baseline_value=float(baseline),
        samples=len(test),
        estimator=(
            "mean over all pixels of all test images, in the units of [0, 1] pixels; "
            "baseline: PCA with as many numbers per image, fitted on the training images"
        ),
    )


def denoising_psnr_db(subject: Subject) -> Metric:
    """PSNR of denoised floats that may leave [0, 1]."""
    model = _denoising(subject)
    clean, noisy, denoised = _denoise(subject, clipped=False)
    wiener = subject.pca.wiener_filter(noisy, model.noise_sigma)
    return Metric(
        value=psnr_db(denoised, clean),
        unit="dB",
        higher_is_better=True,
        baseline_name="Wiener filter in the PCA basis",
        baseline_value=psnr_db(wiener, clean),
        samples=len(clean),
        estimator=(
            f"peak 1, mean squared error over all test images; white noise of σ {model.noise_sigma}"
            f" added to [0, 1] pixels, not clipped, seed {NOISE_SEED}; the baseline's output is "
            "clipped"
        ),
    )


def denoising_psnr_clipped_input_db(subject: Subject) -> Metric:
    """PSNR of denoised images whose noise was clipped to [0, 1], as in a PNG."""
    model = _denoising(subject)
    clean, noisy, denoised = _denoise(subject, clipped=True)
    return Metric(
        value=psnr_db(denoised, clean),
        unit="dB",
        higher_is_better=True,
        baseline_name="clipped noise",
        baseline_value=psnr_db(noisy, clean),
        samples=len(clean),
        estimator=(
            f"peak 1, mean squared error over all test images; white noise of σ {model.noise_sigma}"
            f" added to [0, 1] pixels, then clipped to [0, 1], seed {NOISE_SEED}"
        ),
    )


def elbo_nats(subject: Subject) -> Metric:
    """The evidence lower bound, against the exact log-likelihood of a linear model."""
    model = subject.model
    if not isinstance(model, VAE):
        raise TypeError("the ELBO is that of a VAE")
    generator = torch.Generator().manual_seed(NOISE_SEED)
    total = 0.0
    for images in subject.test_batches():
        for _ in range(ELBO_SAMPLES):
            log_likelihood, kl = model.elbo_terms(images, generator)
            total += float((log_likelihood - kl).double().sum())
    test = subject.data.test
    exact = subject.pca.log_likelihood(to_rows(test), model.latent_dim)
    return Metric(
        value=total / (len(test) * ELBO_SAMPLES),
        unit="nats per image",
        higher_is_better=True,
        baseline_name=f"exact pPCA-{model.latent_dim} log p(x)",
        baseline_value=float(exact.mean()),
        samples=len(test),
        estimator=(
            f"mean over the test images with {ELBO_SAMPLES} posterior samples each and the "
            "closed-form KL; a density of [0, 1] pixels, not dequantised. The baseline is the "
            "exact log-likelihood, stronger than that model's own ELBO, which cannot exceed it"
        ),
    )


def psnr_db(images: np.ndarray, reference: np.ndarray) -> float:
    """10 log₁₀(1 / MSE) with the mean squared error over all images together."""
    return float(-10.0 * np.log10(np.square(images - reference).mean()))


def _denoising(subject: Subject) -> DenoisingAutoencoder:
    if not isinstance(subject.model, DenoisingAutoencoder):
        raise TypeError("only a denoising autoencoder has a noise to be measured with")
    return subject.model


def _denoise(subject: Subject, clipped: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean, noisy and denoised test images as float64 rows."""
    model = _denoising(subject)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    rows: tuple[list[np.ndarray], ...] = ([], [], [])
    for images in subject.test_batches():
        noisy = model.corrupt(images, generator)
        noisy = noisy.clamp(0.0, 1.0) if clipped else noisy
        for kept, batch in zip(rows, (images, noisy, model.reconstruct(noisy)), strict=True):
            kept.append(batch.flatten(1).double().numpy())
    clean, noisy_rows, denoised = (np.concatenate(kept) for kept in rows)
    return clean, noisy_rows, denoised


METRICS: dict[str, Callable[[Subject], Metric]] = {
    "test_mse": reconstruction_mse,
    "test_psnr_db": denoising_psnr_db,
    "test_psnr_clipped_input_db": denoising_psnr_clipped_input_db,
    "test_elbo_nats": elbo_nats,
}
