"""Monitor of sample quality for adversarial training.

An adversarial loss measures neither the quality of samples nor their diversity. After every epoch
the monitor therefore compares samples with the validation images by their features: those of the
shipped classifier, or the leading principal components of the pixels.
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
LONGEST_SIDE = 32  # larger images are downsampled first, to bound the size of the covariance
NEIGHBOURS = 5
COMPARED = 1000  # samples and images for the coverage, which needs all distances between them
LEAST_DIVERSITY = 0.5  # relative to the images; samples of less variance count as collapsed
LEAST_SHARE = 0.01  # of the samples, for a class to count as covered

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleQuality:
    """Quality of samples in comparison with images."""

    frechet_distance: float  # in the units of the features, squared
    coverage: float  # share of images with a sample in their neighbourhood
    diversity: float  # variance of the samples' features divided by that of the images'
    classes_covered: int | None  # None without the classifier
    classes: int | None

    def collapse_reasons(self) -> list[str]:
        """The symptoms of collapse; empty if the samples have not collapsed."""
        reasons = []
        if self.classes is not None and self.classes_covered != self.classes:
            reasons.append(f"they show {self.classes_covered} of {self.classes} classes")
        if self.diversity < LEAST_DIVERSITY:
            reasons.append(f"their variance is {self.diversity:.2f} times that of the images")
        return reasons

    def warn(self) -> None:
        """Log a warning if the samples have collapsed."""
        if reasons := self.collapse_reasons():
            logger.warning("the samples have collapsed: %s", " and ".join(reasons))

    def as_losses(self) -> dict[str, float]:
        """Losses for ``LatentModel.validation_losses``; the Fréchet distance is the ``"loss"``."""
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
    """Compares samples with images; the fit is stored in buffers and thus in the checkpoint."""

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
                    f"the shipped classifier takes images of {self.classifier.image_shape}, not "
                    f"{image_shape}: set monitor to 'pixels'"
                )
        pixels = channels * self.size[0] * self.size[1]
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("directions", torch.zeros(pixels, min(COMPONENTS, pixels)))

    def fit(self, images: Tensor) -> None:
        """Fit the principal components to uint8 training images ``[n, c, h, w]``."""
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
        overlap = set_overlap(real[:COMPARED], fake[:COMPARED], NEIGHBOURS)
        return SampleQuality(
            frechet_distance=frechet_distance(real, fake),
            coverage=overlap.coverage,
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
