"""Metrics of a model that gives images a probability: the ELBO, beside an exact linear model."""

import torch

from latentserve_training.baselines import to_rows
from latentserve_training.measure import NOISE_SEED, Metric, MetricFunction, Subject
from latentserve_training.models.vae import VAE

ELBO_SAMPLES = 16  # latents drawn per test image


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


METRICS: dict[str, MetricFunction] = {
    "test_elbo_nats": elbo_nats,
}
