"""One figure and its baseline, and what figures are measured with."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from latentserve_training.baselines import PCA, fit_pca
from latentserve_training.data import ImageData
from latentserve_training.models.base import LatentModel
from latentserve_training.scaling import to_float

BATCH = 500
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

    @property
    def beats_baseline(self) -> bool | None:
        """Whether the model is better; None without a baseline."""
        if self.baseline_value is None:
            return None
        difference = self.value - self.baseline_value
        return difference > 0 if self.higher_is_better else difference < 0


@dataclass(frozen=True)
class Subject:
    """A model and what it is measured with."""

    model: LatentModel
    data: ImageData
    reference: LatentModel | None = None  # trained for comparison, where the kind has one

    @cached_property
    def pca(self) -> PCA:
        """Fitted once, on first use: it takes some seconds for 60,000 images."""
        dim = max(self.model.latent_dim, self.model.numbers_per_image)
        return fit_pca(self.data.all_train, min(dim, self.data.train[0].numel()))

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
