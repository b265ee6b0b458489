"""Metrics of samples from the prior, with real images as baseline.

All of them use the features of one classifier (``metrics/classifier.py``), so values are comparable
only if they were computed with the same classifier. The baseline of each is the metric of training
images in place of the samples: precision and recall of two sets of real images are not 1, and their
distance is not 0.
"""

import torch
from torch import Tensor

from latentserve_training.evaluate.features import NEIGHBOURS, SEED, Comparison
from latentserve_training.evaluate.metric import REAL_IMAGES, Metric, MetricFunction, Subject
from latentserve_training.metrics.frechet import frechet_distance

COVERED_SHARE_OF_EVEN = 0.1  # a class counts as covered from this part of a uniform share


def distance(subject: Subject) -> Metric:
    """Fréchet distance of samples to test images."""
    comparison = subject.comparison
    return Metric(
        value=frechet_distance(comparison.test, comparison.generated),
        unit="squared distance of features",
        higher_is_better=False,
        baseline_name=REAL_IMAGES,
        baseline_value=frechet_distance(comparison.test, comparison.train),
        samples=comparison.count,
        estimator=(
            "Fréchet distance (float64) between the normal distributions of the features of the "
            f"{_sets(comparison)}"
        ),
    )


def reconstruction_distance(subject: Subject) -> Metric:
    """Fréchet distance of reconstructions to the test images that they reconstruct."""
    comparison = subject.comparison
    return Metric(
        value=frechet_distance(comparison.test, comparison.reconstructed),
        unit="squared distance of features",
        higher_is_better=False,
        baseline_name=REAL_IMAGES,
        baseline_value=frechet_distance(comparison.test, comparison.train),
        samples=comparison.count,
        estimator=(
            "Fréchet distance (float64) between the normal distributions of the features of the "
            "test images and of their reconstructions; baseline: the same number of training "
            f"images in place of the reconstructions; features: {comparison.embedder.description}"
        ),
    )


def classes_covered(subject: Subject) -> Metric | None:
    """The number of classes among the samples; None if the classes are not reliable."""
    comparison = subject.comparison
    if not comparison.classes_are_reliable:
        return None
    shares = comparison.class_shares(comparison.sampled)
    threshold = COVERED_SHARE_OF_EVEN / len(shares)
    return Metric(
        value=float((shares >= threshold).sum()),
        unit=f"of {len(shares)} classes",
        higher_is_better=True,
        baseline_name=REAL_IMAGES,
        baseline_value=float((comparison.test_shares >= threshold).sum()),
        samples=comparison.samples,
        estimator=(
            f"classes with a share of at least {threshold:.2g} among {_sample_count(comparison)}; "
            "baseline: the test images; classes by "
            f"{comparison.embedder.description}"
        ),
    )


def histogram_kl(subject: Subject) -> Metric | None:
    """KL of the class shares of samples from those of training images; None if not reliable."""
    comparison = subject.comparison
    if not comparison.classes_are_reliable:
        return None
    reference = comparison.train_shares
    return Metric(
        value=divergence(comparison.class_shares(comparison.sampled), reference),
        unit="nats",
        higher_is_better=False,
        baseline_name=REAL_IMAGES,
        baseline_value=divergence(comparison.test_shares, reference),
        samples=comparison.samples,
        estimator=(
            f"KL of the histogram of classes of {_sample_count(comparison)} from that of all "
            "training images; baseline: the test images in place of the samples; classes by "
            f"{comparison.embedder.description}"
        ),
    )


def divergence(shares: Tensor, reference: Tensor) -> float:
    """KL(shares ‖ reference) of two histograms ``[classes]`` in nats; the reference is above 0."""
    return float(torch.special.xlogy(shares, shares / reference).sum())


def _overlap(name: str, meaning: str) -> MetricFunction:
    def measure(subject: Subject) -> Metric:
        comparison = subject.comparison
        return Metric(
            value=getattr(comparison.overlap, name),
            unit="mean share of k" if name == "density" else "share",
            higher_is_better=True,
            baseline_name=REAL_IMAGES,
            baseline_value=getattr(comparison.real_overlap, name),
            samples=comparison.count,
            estimator=f"{meaning}, k = {NEIGHBOURS}, of the {_sets(comparison)}",
        )

    return measure


def _sample_count(comparison: Comparison) -> str:
    return f"{comparison.samples:,} samples (seed {SEED})"


def _sets(comparison: Comparison) -> str:
    return (
        f"test images and of the same number of samples (seed {SEED}); baseline: the same number "
        f"of training images in place of the samples; features: {comparison.embedder.description}"
    )


METRICS: dict[str, MetricFunction] = {
    "test_frechet_distance": distance,
    "test_precision": _overlap(
        "precision", "share of samples inside a test image's ball to its k-th neighbour"
    ),
    "test_recall": _overlap(
        "recall", "share of test images inside a sample's ball to its k-th neighbour"
    ),
    "test_density": _overlap(
        "density", "test images whose ball to the k-th neighbour holds a sample, over k, on average"
    ),
    "test_coverage": _overlap(
        "coverage", "share of test images whose ball to the k-th neighbour holds a sample"
    ),
    "test_classes_covered": classes_covered,
    "test_histogram_kl": histogram_kl,
    "test_reconstruction_frechet": reconstruction_distance,
}
