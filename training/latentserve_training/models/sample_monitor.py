"""Watches what a generator makes, because its loss does not tell.

An adversarial loss says who is ahead, not whether the samples are good, nor whether they are all
the same one. So after every epoch some samples are compared with the validation images, through
features: those of the shipped classifier, or the leading principal components of the pixels.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentserve_training.metrics.baselines import fit_pca
from latentserve_training.metrics.classifier import Classifier, load_classifier
from latentserve_training.metrics.frechet import frechet_distance
from latentserve_training.metrics.neighbours import set_overlap
from latentserve_training.pixels import ImageShape, to_float

MonitorFeatures = Literal["pixels", "classifier"]

COMPONENTS = 64
FITTED_IMAGES = 10_000
LONGEST_SIDE = 32  # larger images are averaged down first: a covariance of all pixels has no room
NEIGHBOURS = 5
COMPARED = 1000  # of each side, for the coverage: all distances between them are computed
LEAST_DIVERSITY = 0.5  # of the images' own; below it the samples count as collapsed
LEAST_SHARE = 0.01  # of the samples, for a class to count as covered

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleQuality:
    """Samples beside images."""

    frechet_distance: float  # in the units of the features, squared
    coverage: float  # share of the images that have a sample near them
    diversity: float  # variance of the samples' features over that of the images'
    classes_covered: int | None  # with the classifier
    classes: int | None

    def collapse_reasons(self) -> list[str]:
        """What has collapsed."""
        found = []
        if self.classes is not None and self.classes_covered != self.classes:
            found.append(f"they show {self.classes_covered} of {self.classes} classes")
        if self.diversity < LEAST_DIVERSITY:
            found.append(f"they vary {self.diversity:.2f} times as much as the images")
        return found

    def warn(self) -> None:
        """Log a warning if the samples have collapsed."""
        if found := self.collapse_reasons():
            logger.warning("the samples have collapsed: %s", " and ".join(found))

    def as_losses(self) -> dict[str, float]:
        """For ``LatentModel.validation_losses``: the Fréchet distance selects the best epoch."""
        values = {
            "loss": self.frechet_distance,
            "frechet_distance": self.frechet_distance,
            "coverage": self.coverage,
            "diversity": self.diversity,
        }
        if self.classes_covered is not None:
            values["classes_covered"] = float(self.classes_covered)
        return values


class SampleMonitor(nn.Module):
    """Compares samples with images; what it fits lies in buffers, which the checkpoint keeps."""

    mean: Tensor
    directions: Tensor

    def __init__(
        self, image_shape: ImageShape, kind: MonitorFeatures, longest_side: int = LONGEST_SIDE
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.size = (min(height, longest_side), min(width, longest_side))
        self.classifier: Classifier | None = None
        if kind == "classifier":
            self.classifier = load_classifier()
            if self.classifier.image_shape != image_shape:
                raise ValueError(
                    f"the shipped classifier looks at images of {self.classifier.image_shape}, not "
                    f"{image_shape}: set monitor to 'pixels'"
                )
        pixels = channels * self.size[0] * self.size[1]
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("directions", torch.zeros(pixels, min(COMPONENTS, pixels)))

    def fit(self, images: Tensor) -> None:
        """Find the principal components of uint8 training images ``[n, c, h, w]``."""
        if self.classifier is None:
            pca = fit_pca(self._small(images[:FITTED_IMAGES].float()).round().to(torch.uint8))
            self.mean.copy_(torch.from_numpy(pca.mean))
            self.directions.copy_(
                torch.from_numpy(pca.directions[:, : self.directions.shape[1]].copy())
            )

    def compare(self, images: Tensor, samples: Tensor) -> SampleQuality:
        """Compare samples ``[m, c, h, w]``, float in [0, 1], with uint8 images ``[n, c, h, w]``."""
        classes = covered = None
        if self.classifier is None:
            real, fake = self._components(to_float(images)).cpu(), self._components(samples).cpu()
        else:
            embedded = self.classifier.embed(samples)
            real, fake = self.classifier.embed(images).features, embedded.features
            classes = self.classifier.classes
            shares = torch.bincount(embedded.classes, minlength=classes) / len(samples)
            covered = int((shares >= LEAST_SHARE).sum())
        near = set_overlap(real[:COMPARED], fake[:COMPARED], NEIGHBOURS)
        return SampleQuality(
            frechet_distance=frechet_distance(real, fake),
            coverage=near.coverage,
            diversity=float(fake.var(0).sum() / real.var(0).sum()),
            classes_covered=covered,
            classes=classes,
        )

    def _components(self, images: Tensor) -> Tensor:
        device = self.mean.device
        return (self._small(images.to(device)).flatten(1) - self.mean) @ self.directions

    def _small(self, images: Tensor) -> Tensor:
        if images.shape[2:] == self.size:
            return images
        return functional.adaptive_avg_pool2d(images, self.size)
