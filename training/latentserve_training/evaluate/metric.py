"""A metric with its baseline, and the subject of an evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from onnxruntime import InferenceSession
from torch import Tensor

from latentserve_training.data import ImageData
from latentserve_training.evaluate.features import Comparison, PrincipalComponents
from latentserve_training.metrics.baselines import PCA, fit_pca
from latentserve_training.metrics.classifier import Classifier, shipped_classifier
from latentserve_training.models.base import LatentModel
from latentserve_training.pixels import to_float

BATCH = 500
SAMPLES = 10_000  # samples from the prior, for models with a prior
REAL_IMAGES = "real images"  # name of a baseline that is the limit of a perfect model
NOISE_SEED = 1234  # of the test noise, the same for all runs, so that only the models differ


@dataclass(frozen=True)
class Metric:
    """The value of a metric, its baseline, and how both were computed."""

    value: float
    unit: str
    higher_is_better: bool
    baseline_name: str | None  # None without a baseline
    baseline_value: float | None
    samples: int
    estimator: str

    def as_manifest(self) -> dict[str, Any]:
        """The metric in the form of the manifest."""
        plain = asdict(self)
        name, value = plain.pop("baseline_name"), plain.pop("baseline_value")
        baseline = None if value is None else {"name": name, "value": value}
        return plain | {"baseline": baseline}

    @classmethod
    def from_manifest(cls, metric: dict[str, Any]) -> "Metric":
        """A metric from the form of :meth:`as_manifest`."""
        baseline = metric["baseline"] or {"name": None, "value": None}
        return cls(
            value=metric["value"],
            unit=metric["unit"],
            higher_is_better=metric.get("higher_is_better", True),
            baseline_name=baseline["name"],
            baseline_value=baseline["value"],
            samples=metric["samples"],
            estimator=metric["estimator"],
        )

    @property
    def beats_baseline(self) -> bool | None:
        """Whether the model is better; None without a baseline, or if the baseline is a limit."""
        if self.baseline_value is None or self.baseline_name == REAL_IMAGES:
            return None
        difference = self.value - self.baseline_value
        return difference > 0 if self.higher_is_better else difference < 0


@dataclass(frozen=True)
class Subject:
    """The subject of an evaluation: a model, its data and its reference."""

    model: LatentModel
    data: ImageData
    reference: LatentModel | None = None  # trained as a baseline, if the kind has one
    classifier: Classifier | None = None  # None for the shipped one, if it fits the images
    samples: int = SAMPLES
    decoder: InferenceSession | None = None  # None to convert the decoder of the model

    @cached_property
    def pca(self) -> PCA:
        """PCA of the training images, fitted on first use; some seconds for 60,000 images."""
        dim = max(self.model.latent_dim, self.model.nonzero_latents_per_image)
        return fit_pca(self.data.all_train, min(dim, self.data.train[0].numel()))

    @cached_property
    def comparison(self) -> Comparison:
        """Features of samples and real images, by the classifier or by PCA."""
        embedder = self.classifier or shipped_classifier(self.data.image_shape)
        if embedder is None:
            return Comparison(self.model, self.data, PrincipalComponents(self.pca), self.samples)
        return Comparison(self.model, self.data, embedder, self.samples)

    def test_batches(self) -> Iterator[Tensor]:
        """Float test images ``[n, c, h, w]``."""
        for batch in torch.split(self.data.test, BATCH):
            yield to_float(batch)


def mean_squared_error(subject: Subject, reconstruct: Callable[[Tensor], Tensor]) -> float:
    """The mean squared error over all pixels of all test images."""
    error = 0.0
    for images in subject.test_batches():
        error += float((reconstruct(images) - images).double().square().sum())
    return error / subject.data.test.numel()


MetricFunction = Callable[[Subject], Metric | None]
"""Computes one metric; None if the subject does not have it."""
