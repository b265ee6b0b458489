"""Metrics of latents as representations: accuracy of a linear probe and of nearest neighbours.

The baseline is the better one of the same classifier on the pixels and on latents of PCA: a model
below it represents the class less well than a linear map of the same size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentserve_training.data import Labels
from latentserve_training.evaluate.metric import BATCH, Metric, MetricFunction, Subject
from latentserve_training.metrics.linear_probe import fit_probe
from latentserve_training.metrics.neighbours import vote_of_nearest
from latentserve_training.models.base import LatentModel
from latentserve_training.models.sparse import SparseAutoencoder
from latentserve_training.pixels import to_float

NEIGHBOURS = 5

Encode = Callable[[Tensor], Tensor]
"""Float images ``[n, c, h, w]`` to latents or other features ``[n, d]``."""


def probe_accuracy(subject: Subject) -> Metric | None:
    """Accuracy of a linear classifier of the latents.

    None without labels: training does not need them, so they may be missing.
    """

    def accuracy(encode: Encode, labels: Labels) -> float:
        data = subject.data
        train, held_out, test = (
            _in_batches(encode, images) for images in (data.train, data.validation, data.test)
        )
        probe = fit_probe(train, labels.train, held_out, labels.validation)
        return probe.accuracy(test, labels.test)

    return _with_linear_baseline(
        subject,
        subject.model.probe_features,
        accuracy,
        f"multinomial logistic regression of the latents{_probed_units(subject.model)}, fitted to "
        "the training images and their labels, with the weight decay selected on held-out images; "
        "the encoder was trained without labels",
    )


def knn_accuracy(subject: Subject) -> Metric | None:
    """Accuracy of the vote of the nearest training images by latents; None without labels."""

    def accuracy(encode: Encode, labels: Labels) -> float:
        points, queries = (
            _in_batches(encode, images) for images in (subject.data.all_train, subject.data.test)
        )
        votes = vote_of_nearest(queries, points, labels.all_train, NEIGHBOURS)
        return float((votes == labels.test).double().mean())

    return _with_linear_baseline(
        subject,
        lambda images: subject.model.posterior(images)[0],
        accuracy,
        f"vote of the {NEIGHBOURS} training images, including held-out images, whose latents are "
        "nearest by the Euclidean distance; ties go to the first class; the encoder was trained "
        "without labels",
    )


def _with_linear_baseline(
    subject: Subject,
    encode: Encode,
    accuracy: Callable[[Encode, Labels], float],
    estimator: str,
) -> Metric | None:
    labels = subject.data.labels
    if labels is None:
        return None
    if not subject.model.has_encoder:
        raise TypeError(f"a model of kind {subject.model.kind} has no encoder")
    first, *_ = subject.test_batches()
    # An export may give NaN, for which a classifier would still compute an accuracy.
    value = accuracy(encode, labels) if encode(first).isfinite().all() else math.nan
    others = {name: accuracy(encode, labels) for name, encode in _linear_features(subject).items()}
    best = max(others, key=lambda name: others[name])
    listed = ", ".join(f"of {name} {100.0 * other:.2f} %" for name, other in others.items())
    return Metric(
        value=100.0 * value,
        unit="% of the test images",
        higher_is_better=True,
        baseline_name=f"the same classifier of {best}",
        baseline_value=100.0 * others[best],
        samples=len(subject.data.test),
        estimator=f"{estimator}; baseline: the best of the same classifier {listed}",
    )


def _probed_units(model: LatentModel) -> str:
    if not isinstance(model, SparseAutoencoder) or model.config.sparsity != "top_k":
        return ""
    config = model.config
    if config.probe_active in (0, config.active):
        return ""
    return (
        f", the {config.probe_active} largest of each image instead of the {config.active} served"
    )


def _linear_features(subject: Subject) -> dict[str, Encode]:
    features: dict[str, Encode] = {"the pixels": lambda images: images.flatten(1)}
    dim = subject.model.nonzero_latents_per_image
    if dim < subject.data.test[0].numel():  # otherwise PCA is only a rotation of the pixels
        features[f"PCA-{dim} codes"] = lambda images: torch.from_numpy(
            subject.pca.coordinates(images.flatten(1).double().numpy(), dim)
        ).float()
    return features


def _in_batches(encode: Encode, images: Tensor) -> Tensor:
    return torch.cat([encode(to_float(batch)) for batch in torch.split(images, BATCH)])


METRICS: dict[str, MetricFunction] = {
    "test_probe_accuracy": probe_accuracy,
    "test_knn_accuracy": knn_accuracy,
}
