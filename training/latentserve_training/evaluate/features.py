"""Features of samples and of real images, for the comparison of both."""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from latentserve_training.data import ImageData
from latentserve_training.metrics.baselines import PCA
from latentserve_training.metrics.classifier import Classifier, Embedding
from latentserve_training.metrics.neighbours import SetOverlap, set_overlap
from latentserve_training.models.base import LatentModel
from latentserve_training.pixels import to_float

SEED = 4321  # of the latents of the samples and of the choice of training images
BATCH = 500
NEIGHBOURS = 5  # k of precision, recall, density and coverage
TRUSTED_ACCURACY = 0.9  # minimum accuracy of a classifier for metrics that use its classes
COMPONENTS = 64


class Embedder(Protocol):
    """Computes features of images, and their classes if it can."""

    @property
    def description(self) -> str:
        """Description of the features, for the estimator text of a metric."""

    def embed(self, images: Tensor) -> Embedding:
        """Features and classes of images ``[n, c, h, w]``, uint8 or float in [0, 1]."""


class PrincipalComponents:
    """Principal components as features, for images without a classifier."""

    def __init__(self, pca: PCA) -> None:
        self._pca = pca
        self._count = min(COMPONENTS, len(pca.mean))

    @property
    def description(self) -> str:
        """Description of the features, for the estimator text of a metric."""
        return (
            f"the first {self._count} principal components of the training images, because no "
            "classifier of such images was given (--classifier)"
        )

    def embed(self, images: Tensor) -> Embedding:
        """Coordinates of the images; all classes are 0."""
        floats = to_float(images) if images.dtype == torch.uint8 else images
        rows = floats.flatten(1).double().numpy()
        features = self._pca.coordinates(rows, self._count)
        return Embedding(
            torch.from_numpy(features).float(), torch.zeros(len(images), dtype=torch.int64)
        )


class Comparison:
    """Features of equally many test images, training images and samples, computed on first use.

    The training images represent a perfect model: their metrics against the test images are the
    limit for any model.
    """

    def __init__(
        self, model: LatentModel, data: ImageData, embedder: Embedder, samples: int
    ) -> None:
        self.model = model
        self.data = data
        self.embedder = embedder
        self.samples = samples  # number of samples for the histogram of classes

    @property
    def count(self) -> int:
        """Number of images in each of two sets that are compared."""
        return min(self.samples, len(self.data.test), len(self._all_train.classes))

    @cached_property
    def test(self) -> Tensor:
        """Features of test images, ``[count, d]``."""
        return self._all_test.features[: self.count]

    @cached_property
    def train(self) -> Tensor:
        """Features of training images, ``[count, d]``, chosen without replacement."""
        features = self._all_train.features
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SEED))
        return features[order[: self.count]]

    @cached_property
    def sampled(self) -> Embedding:
        """Features and classes of all samples, which are decoded latents from the prior."""
        generator = torch.Generator().manual_seed(SEED)
        latents = self.model.sample_latents(self.samples, generator)
        decoded = [self.model.decode(batch) for batch in torch.split(latents, BATCH)]
        return self.embedder.embed(torch.cat(decoded))

    @property
    def generated(self) -> Tensor:
        """Features of samples, ``[count, d]``."""
        return self.sampled.features[: self.count]

    @cached_property
    def reconstructed(self) -> Tensor:
        """Features of the reconstructions of the test images, ``[count, d]``."""
        batches = torch.split(self.data.test[: self.count], BATCH)
        decoded = [self.model.reconstruct(to_float(batch)) for batch in batches]
        return self.embedder.embed(torch.cat(decoded)).features

    @cached_property
    def overlap(self) -> SetOverlap:
        """Overlap of the samples with the test images."""
        return set_overlap(self.test, self.generated, NEIGHBOURS)

    @cached_property
    def real_overlap(self) -> SetOverlap:
        """Overlap of the training images with the test images."""
        return set_overlap(self.test, self.train, NEIGHBOURS)

    @cached_property
    def classes_are_reliable(self) -> bool:
        """Whether the classes given by the embedder are accurate for these images."""
        if not isinstance(self.embedder, Classifier):
            return False
        if self.data.labels is None:  # then only for the data set it was trained on, by name
            return bool(self.embedder.card["data"]["name"] == self.data.name)
        correct = self._all_test.classes == self.data.labels.test
        return float(correct.double().mean()) >= TRUSTED_ACCURACY

    def class_shares(self, of: Embedding) -> Tensor:
        """The share of each class, float64 ``[classes]``."""
        assert isinstance(self.embedder, Classifier)  # noqa: S101  see classes_are_reliable
        counts = torch.bincount(of.classes, minlength=self.embedder.classes)
        return counts.double() / len(of.classes)

    @property
    def train_shares(self) -> Tensor:
        """Class shares of all training images, smoothed above 0 so that logarithms are finite."""
        smoothed = self.class_shares(self._all_train) + 1.0 / len(self._all_train.classes)
        return smoothed / smoothed.sum()

    @property
    def test_shares(self) -> Tensor:
        """Class shares of all test images."""
        return self.class_shares(self._all_test)

    @cached_property
    def _all_test(self) -> Embedding:
        return self.embedder.embed(self.data.test)

    @cached_property
    def _all_train(self) -> Embedding:
        return self.embedder.embed(self.data.all_train)
