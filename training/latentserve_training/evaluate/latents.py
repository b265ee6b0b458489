"""Metrics of latents: contraction, sparsity and likelihood under the prior."""

import torch
from torch import Tensor

from latentserve_training.evaluate.metric import Metric, MetricFunction, Subject, mean_squared_error
from latentserve_training.models.base import LatentModel
from latentserve_training.models.contractive import ContractiveAutoencoder
from latentserve_training.models.sparse import SparseAutoencoder
from latentserve_training.train.fit_prior import encode_images, fit_mixture

ZERO = 1e-3  # latents below it count as zero, because a sigmoid is never exactly zero
PLAIN = "plain autoencoder"


def jacobian_norm(subject: Subject) -> Metric:
    """Mean ‖J‖²_F of the encoder; baseline: the same network trained without the penalty."""
    reference = subject.reference
    return Metric(
        value=_mean_jacobian_norm(subject, subject.model),
        unit="squared Frobenius norm per image",
        higher_is_better=False,
        baseline_name=None if reference is None else PLAIN,
        baseline_value=None if reference is None else _mean_jacobian_norm(subject, reference),
        samples=len(subject.data.test),
        estimator=(
            "mean over the test images of the exact squared Frobenius norm of the latents' "
            "Jacobian; baseline: the same architecture trained the same way without the penalty"
        ),
    )


def mse_beside_plain(subject: Subject) -> Metric:
    """Squared error per pixel; baseline: the plain autoencoder, which shows the penalty's cost."""
    reference = subject.reference
    plain = None if reference is None else mean_squared_error(subject, reference.reconstruct)
    return Metric(
        value=mean_squared_error(subject, subject.model.reconstruct),
        unit="squared error per pixel",
        higher_is_better=False,
        baseline_name=None if reference is None else PLAIN,
        baseline_value=plain,
        samples=len(subject.data.test),
        estimator=(
            "mean over all pixels of all test images, in the units of [0, 1] pixels; baseline: "
            "the same architecture trained the same way without the penalty, which increases the "
            "error"
        ),
    )


def share_of_zeros(subject: Subject) -> Metric:
    """The share of latents that are zero."""
    active = torch.cat([_active(subject, images) for images in subject.test_batches()])
    return Metric(
        value=1.0 - float(active.double().mean()),
        unit="share of latents",
        higher_is_better=True,
        baseline_name=None,
        baseline_value=None,
        samples=len(subject.data.test),
        estimator=f"latents of all test images whose magnitude is at most {ZERO:g}",
    )


def dead_units(subject: Subject) -> Metric:
    """The number of latents that are not active for any image."""
    alive = torch.stack([_active(subject, images).any(0) for images in subject.test_batches()])
    return Metric(
        value=float((~alive.any(0)).sum()),
        unit=f"of {subject.model.latent_dim} units",
        higher_is_better=False,
        baseline_name=None,
        baseline_value=None,
        samples=len(subject.data.test),
        estimator=f"units whose magnitude is at most {ZERO:g} for every test image",
    )


def latent_log_likelihood(subject: Subject) -> Metric | None:
    """Log-density of test latents under the mixture prior; baseline: one Gaussian.

    None without a mixture.
    """
    model, mixture = subject.model, subject.model.mixture
    if mixture is None:
        return None
    test = encode_images(model, subject.data.test)
    train = encode_images(model, subject.data.train).double().numpy()
    gaussian = fit_mixture(train, 1, "full", seed=0)
    return Metric(
        value=float(mixture.log_density(test).mean()),
        unit="nats per code",
        higher_is_better=True,
        baseline_name="one Gaussian",
        baseline_value=float(gaussian.log_density(test).mean()),
        samples=len(test),
        estimator=(
            f"mean over the test images of the log-density of their {model.latent_dim} latents "
            f"under the mixture of {mixture.components} Gaussians fitted to latents of training "
            "images; baseline: one Gaussian with a full covariance, fitted to the latents of all "
            "training images. A density depends on the scale of the latents, so values of "
            "different models are not comparable"
        ),
    )


def _mean_jacobian_norm(subject: Subject, model: LatentModel) -> float:
    if not isinstance(model, ContractiveAutoencoder):
        raise TypeError("this metric needs a contractive autoencoder")
    norms = [model.jacobian_norm(images).double().sum() for images in subject.test_batches()]
    return float(torch.stack(norms).sum()) / len(subject.data.test)


def _sparse_model(subject: Subject) -> SparseAutoencoder:
    if not isinstance(subject.model, SparseAutoencoder):
        raise TypeError("this metric needs a sparse autoencoder")
    return subject.model


def _active(subject: Subject, images: Tensor) -> Tensor:
    return _sparse_model(subject).encode(images).abs() > ZERO


METRICS: dict[str, MetricFunction] = {
    "test_jacobian": jacobian_norm,
    "test_mse_beside_plain": mse_beside_plain,
    "test_share_of_zeros": share_of_zeros,
    "test_dead_units": dead_units,
    "test_code_log_likelihood_nats": latent_log_likelihood,
}
