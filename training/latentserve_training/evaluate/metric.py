"""One figure and its baseline, and what figures are measured with."""

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
SAMPLES = 10_000  # drawn from the prior, where it has one
REAL_IMAGES = "real images"  # a baseline's name: no rival, but what a perfect model would score
NOISE_SEED = 1234  # of the test noise: figures of two runs differ by their models alone


@dataclass(frozen=True)
class Metric:
    """One figure beside its baseline, and how both came about."""

    value: float
    unit: str
    higher_is_better: bool
    baseline_name: str | None  # None where there is nothing to compare with
    baseline_value: float | None
    samples: int
    estimator: str

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's form."""
        plain = asdict(self)
        name, value = plain.pop("baseline_name"), plain.pop("baseline_value")
        baseline = None if value is None else {"name": name, "value": value}
        return plain | {"baseline": baseline}

    @classmethod
    def from_manifest(cls, metric: dict[str, Any]) -> "Metric":
        """What :meth:`as_manifest` gave."""
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
        """Whether the model is better; None without a baseline, or where it is the limit."""
        if self.baseline_value is None or self.baseline_name == REAL_IMAGES:
            return None
        difference = self.value - self.baseline_value
        return difference > 0 if self.higher_is_better else difference < 0


@dataclass(frozen=True)
class Subject:
    """A model and what it is measured with."""

    model: LatentModel
    data: ImageData
    reference: LatentModel | None = None  # trained for comparison, where the kind has one
    classifier: Classifier | None = None  # None for the shipped one, where it fits the images
    samples: int = SAMPLES
    decoder: InferenceSession | None = None  # None to export the model's own

    @cached_property
    def pca(self) -> PCA:
        """Fitted once, on first use: it takes some seconds for 60,000 images."""
        dim = max(self.model.latent_dim, self.model.nonzero_latents_per_image)
        return fit_pca(self.data.all_train, min(dim, self.data.train[0].numel()))

    @cached_property
    def comparison(self) -> Comparison:
        """Samples and real images, seen through the classifier's features."""
        embedder = self.classifier or shipped_classifier(self.data.image_shape)
        if embedder is None:
            return Comparison(self.model, self.data, PrincipalComponents(self.pca), self.samples)
        return Comparison(self.model, self.data, embedder, self.samples)

    def test_batches(self) -> Iterator[Tensor]:
        """Float test images ``[n, c, h, w]``."""
        for batch in torch.split(self.data.test, BATCH):
            yield to_float(batch)


def mean_squared_error(subject: Subject, reconstruct: Callable[[Tensor], Tensor]) -> float:
    """Over all pixels of all test images."""
    error = 0.0
    for images in subject.test_batches():
        error += float((reconstruct(images) - images).double().square().sum())
    return error / subject.data.test.numel()


MetricFunction = Callable[[Subject], Metric | None]
"""Measures one figure; None where the subject does not have it."""
