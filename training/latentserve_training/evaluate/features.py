"""Samples of a model and real images, seen through the same features."""

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

SEED = 4321  # of the latents that are decoded, and of the choice of training images
BATCH = 500
NEIGHBOURS = 5  # k of precision, recall, density and coverage
TRUSTED_ACCURACY = 0.9  # below it, a classifier's word on what it sees counts for nothing
COMPONENTS = 64


class Embedder(Protocol):
    """Gives features, and classes where it can."""

    @property
    def description(self) -> str:
        """For an estimator."""

    def embed(self, images: Tensor) -> Embedding:
        """Of images ``[n, c, h, w]``, uint8 or float in [0, 1]."""


class PrincipalComponents:
    """Features for images that there is no classifier for."""

    def __init__(self, pca: PCA) -> None:
        self._pca = pca
        self._count = min(COMPONENTS, len(pca.mean))

    @property
    def description(self) -> str:
        """For an estimator."""
        return (
            f"the first {self._count} principal components of the training images, for want of a "
            "classifier of such images (--classifier)"
        )

    def embed(self, images: Tensor) -> Embedding:
        """Coordinates; the classes are all 0."""
        floats = to_float(images) if images.dtype == torch.uint8 else images
        rows = floats.flatten(1).double().numpy()
        features = self._pca.coordinates(rows, self._count)
        return Embedding(
            torch.from_numpy(features).float(), torch.zeros(len(images), dtype=torch.int64)
        )


class Comparison:
    """Test images, as many training images and as many samples; everything on first use.

    The training images stand for a perfect model: what they score against the test images is what
    any model can hope for.
    """

    def __init__(
        self, model: LatentModel, data: ImageData, embedder: Embedder, samples: int
    ) -> None:
        self.model = model
        self.data = data
        self.embedder = embedder
        self.samples = samples  # drawn for the histogram of classes

    @property
    def count(self) -> int:
        """Images in each of two sets that are compared."""
        return min(self.samples, len(self.data.test), len(self._all_train.classes))

    @cached_property
    def test(self) -> Tensor:
        """Features of test images, ``[count, d]``."""
        return self._all_test.features[: self.count]

    @cached_property
    def train(self) -> Tensor:
        """Features of training images, ``[count, d]``, drawn without replacement."""
        features = self._all_train.features
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SEED))
        return features[order[: self.count]]

    @cached_property
    def sampled(self) -> Embedding:
        """Of all samples: latents drawn from the prior and decoded."""
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
        """Of the samples with the test images."""
        return set_overlap(self.test, self.generated, NEIGHBOURS)

    @cached_property
    def real_overlap(self) -> SetOverlap:
        """Of the training images with the test images."""
        return set_overlap(self.test, self.train, NEIGHBOURS)

    @cached_property
    def classes_are_reliable(self) -> bool:
        """Whether what the embedder calls the images is what they are."""
        if not isinstance(self.embedder, Classifier):
            return False
        if self.data.labels is None:  # then only data of the name it was trained on
            return bool(self.embedder.card["data"]["name"] == self.data.name)
        right = self._all_test.classes == self.data.labels.test
        return float(right.double().mean()) >= TRUSTED_ACCURACY

    def class_shares(self, of: Embedding) -> Tensor:
        """The share of each class, float64 ``[classes]``."""
        assert isinstance(self.embedder, Classifier)  # noqa: S101  classes_are_reliable was asked
        counts = torch.bincount(of.classes, minlength=self.embedder.classes)
        return counts.double() / len(of.classes)

    @property
    def train_shares(self) -> Tensor:
        """Of all training images; no class is without any, so that logarithms are finite."""
        smoothed = self.class_shares(self._all_train) + 1.0 / len(self._all_train.classes)
        return smoothed / smoothed.sum()

    @property
    def test_shares(self) -> Tensor:
        """Of all test images."""
        return self.class_shares(self._all_test)

    @cached_property
    def _all_test(self) -> Embedding:
        return self.embedder.embed(self.data.test)

    @cached_property
    def _all_train(self) -> Embedding:
        return self.embedder.embed(self.data.all_train)
