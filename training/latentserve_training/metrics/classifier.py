"""Classifier that gives the features and classes of images for sample metrics.

A distance between pixels says little about the content of images. The usual features are those of
an Inception network trained on ImageNet (Heusel et al. 2017, 1706.08500), which has to be
downloaded and was not trained on digits. Here they come from a small network that is trained on the
evaluated data set, shipped as ONNX and identified by its hash. Metrics are comparable only if they
were computed with the same classifier.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from latentserve_training.errors import EvaluationError
from latentserve_training.graphs.conversion import start_session
from latentserve_training.pixels import ImageShape, to_float

SHIPPED = Path(__file__).parents[1] / "classifiers" / "mnist.onnx"
BATCH = 200
TRAIN_AGAIN = "train one with train-classifier"


@dataclass(frozen=True)
class Embedding:
    """Features and classes of images."""

    features: Tensor  # float32 [n, d]: inputs of the last, linear layer
    classes: Tensor  # int64 [n]: the most probable class

    def __getitem__(self, rows: slice) -> "Embedding":
        """The embedding of some of the images."""
        return Embedding(self.features[rows], self.classes[rows])


class Classifier:
    """An ONNX graph images → (features, logits), and the card that describes it."""

    def __init__(self, session: onnxruntime.InferenceSession, card: dict[str, Any]) -> None:
        self.card = card
        self._session = session

    @property
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""
        image = self.card["image"]
        return image["channels"], image["height"], image["width"]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.card["classes"])

    @property
    def description(self) -> str:
        """Training data, accuracy and hash, for the estimator text of a metric."""
        return (
            f"a classifier trained on {self.card['data']['name']}, right for "
            f"{self.card['accuracy']['value']:.2f} % of its test images, sha256 "
            f"{self.card['sha256'][:12]}"
        )

    def embed(self, images: Tensor) -> Embedding:
        """Features and classes of images ``[n, c, h, w]``, uint8 or float in [0, 1]."""
        features, classes = [], []
        for batch in _float_batches(images):
            outputs = self._session.run(["features", "logits"], {"images": batch})
            features.append(torch.from_numpy(outputs[0]))
            classes.append(torch.from_numpy(outputs[1]).argmax(1))
        return Embedding(torch.cat(features), torch.cat(classes))

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The share of images whose label, int64 ``[n]``, is the most probable class."""
        return float((self.embed(images).classes == labels).double().mean())


def load_classifier(path: Path = SHIPPED) -> Classifier:
    """Load a classifier and its card, ``<name>.json`` next to ``<name>.onnx``.

    Raises:
        EvaluationError: If a file is missing or damaged, or the graph does not match the card.
    """
    try:
        content, card = path.read_bytes(), json.loads(card_path(path).read_text(encoding="utf-8"))
        expected = card["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"the classifier {path} and its card {card_path(path).name} cannot be read ({error}); "
            f"{TRAIN_AGAIN}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise EvaluationError(
            f"the classifier {path} has the sha256 {digest}, but its card says {expected}: metrics "
            f"would not be comparable; restore both files or {TRAIN_AGAIN}"
        )
    return Classifier(start_session(content), card)


def shipped_classifier(image_shape: ImageShape) -> Classifier | None:
    """The classifier in this package; None for images of another shape."""
    classifier = load_classifier()
    return classifier if classifier.image_shape == image_shape else None


def card_path(path: Path) -> Path:
    """The path of the card of the classifier at ``path``."""
    return path.with_suffix(".json")


def _float_batches(images: Tensor) -> Iterator[np.ndarray]:
    for batch in torch.split(images.cpu(), BATCH):
        batch = to_float(batch) if batch.dtype == torch.uint8 else batch.float()
        yield batch.numpy()
