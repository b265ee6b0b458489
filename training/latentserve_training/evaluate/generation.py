"""Metrics of what a model draws from its prior, beside what real images score.

All of them see images through the features of one classifier (``classifier.py``), so they compare
only with figures made with the same one. The value beside each is what training images score in the
place of the samples: precision and recall of two sets of real images are not 1, nor is their
distance 0.
"""

import torch
from torch import Tensor

from latentserve_training.evaluate.features import NEIGHBOURS, SEED, Comparison
from latentserve_training.evaluate.metric import REAL_IMAGES, Metric, MetricFunction, Subject
from latentserve_training.metrics.frechet import frechet_distance

COVERED_SHARE_OF_EVEN = 0.1  # of the share that each class would have if all had the same


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
            "test images and of their reconstructions; baseline: as many training images in the "
            f"place of the reconstructions; features: {comparison.embedder.description}"
        ),
    )


def classes_covered(subject: Subject) -> Metric | None:
    """How many classes the samples show; None where nobody can tell the classes."""
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
    """KL of the samples' classes from the training images'; None where nobody can tell them."""
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
            f"KL of the histogram of classes of {_sample_count(comparison)} from that of all training "
            "images; baseline: the test images in the place of the samples; classes by "
            f"{comparison.embedder.description}"
        ),
    )


def divergence(shares: Tensor, reference: Tensor) -> float:
    """KL(shares ‖ reference) of two histograms ``[classes]`` in nats; the reference has no 0."""
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
        f"test images and of as many samples (seed {SEED}); baseline: as many training images in "
        f"the place of the samples; features: {comparison.embedder.description}"
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
