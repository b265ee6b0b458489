"""Metrics of a model that has an encoder and a generator, beside a plain VAE of the same size.

What a discriminator is worth shows in the distance of the samples, and what it costs in the error
of the reconstructions; both only beside the same two networks trained without one.
"""

from collections.abc import Callable
from dataclasses import replace

from latentserve_training.evaluate import generation
from latentserve_training.evaluate.metric import Metric, MetricFunction, Subject, mean_squared_error

VAE_REFERENCE = "VAE of the same size"
VAE_BASELINE = (
    "baseline: a VAE with the same encoder and decoder, trained on the same images for as many "
    "epochs"
)


def frechet_beside_vae(subject: Subject) -> Metric:
    """Fréchet distance of samples to test images, beside that of the VAE's samples."""
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
            f"test images and of as many samples; {VAE_BASELINE}; features: "
            f"{comparison.embedder.description}"
        ),
    )


def mse_beside_vae(subject: Subject) -> Metric:
    """Squared error per pixel of the reconstructions, beside that of the VAE's."""
    value, baseline = _both(subject, lambda each: mean_squared_error(each, each.model.reconstruct))
    return Metric(
        value=value,
        unit="squared error per pixel",
        higher_is_better=False,
        baseline_name=None if baseline is None else VAE_REFERENCE,
        baseline_value=baseline,
        samples=len(subject.data.test),
        estimator=(
            f"mean over all pixels of all test images, in the units of [0, 1] pixels; {VAE_BASELINE}, "
            "which minimises this error, as the model does not"
        ),
    )


def _both(subject: Subject, measure: Callable[[Subject], float]) -> tuple[float, float | None]:
    """The figure of the model, and that of the reference where there is one."""
    if subject.reference is None:
        return measure(subject), None
    return measure(subject), measure(replace(subject, model=subject.reference, reference=None))


METRICS: dict[str, MetricFunction] = {
    "test_frechet_beside_vae": frechet_beside_vae,
    "test_mse_beside_vae": mse_beside_vae,
}
