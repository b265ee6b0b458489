"""Metrics of a VAE-GAN with a plain VAE of the same size as baseline.

The Fréchet distance of the samples shows the gain by the discriminator, and the error of the
reconstructions shows its cost; both need the same encoder and decoder trained without it.
"""

from collections.abc import Callable
from dataclasses import replace

from latentserve_training.evaluate import generation
from latentserve_training.evaluate.metric import Metric, MetricFunction, Subject, mean_squared_error

VAE_REFERENCE = "VAE of the same size"
VAE_BASELINE = (
    "baseline: a VAE with the same encoder and decoder, trained on the same images for the same "
    "number of epochs"
)


def frechet_beside_vae(subject: Subject) -> Metric:
    """Fréchet distance of samples to test images; baseline: samples of the VAE."""
    comparison = subject.comparison
    value, baseline = _both(subject, lambda each: generation.distance(each).value)
    return Metric(
        value=value,
        unit="squared distance of features",
        higher_is_better=False,
        baseline_name=None if baseline is None else VAE_REFERENCE,
        baseline_value=baseline,
        samples=comparison.count,
        estimator=(
            "Fréchet distance (float64) between the normal distributions of the features of the "
            f"test images and of the same number of samples; {VAE_BASELINE}; features: "
            f"{comparison.embedder.description}"
        ),
    )


def mse_beside_vae(subject: Subject) -> Metric:
    """Squared error per pixel of the reconstructions; baseline: those of the VAE."""
    value, baseline = _both(subject, lambda each: mean_squared_error(each, each.model.reconstruct))
    return Metric(
        value=value,
        unit="squared error per pixel",
        higher_is_better=False,
        baseline_name=None if baseline is None else VAE_REFERENCE,
        baseline_value=baseline,
        samples=len(subject.data.test),
        estimator=(
            "mean over all pixels of all test images, in the units of [0, 1] pixels; "
            f"{VAE_BASELINE}; unlike the model, it minimises this error"
        ),
    )


def _both(subject: Subject, measure: Callable[[Subject], float]) -> tuple[float, float | None]:
    """The metric of the model, and that of the reference or None."""
    if subject.reference is None:
        return measure(subject), None
    return measure(subject), measure(replace(subject, model=subject.reference, reference=None))


METRICS: dict[str, MetricFunction] = {
    "test_frechet_beside_vae": frechet_beside_vae,
    "test_mse_beside_vae": mse_beside_vae,
}
