"""The classifier that generative metrics look through: features and classes of images.

A distance between images says little of what is in them. The usual judge is an Inception network
trained on ImageNet (Heusel et al. 2017, 1706.08500), which has to be downloaded and was never
shown a digit; here it is a small network of our own, trained on the data that is judged, shipped as
ONNX and known by its hash. Figures made with it compare only with figures made with the same one.
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
    """What the classifier says of images."""

    features: Tensor  # float32 [n, d]: what its last, linear layer sees
    classes: Tensor  # int64 [n]: the likeliest

    def __getitem__(self, rows: slice) -> "Embedding":
        """Some of them."""
        return Embedding(self.features[rows], self.classes[rows])


class Classifier:
    """An ONNX graph images → (features, logits), and the card that says what it is."""

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
        """How many it tells apart."""
        return int(self.card["classes"])

    @property
    def description(self) -> str:
        """For an estimator: what it was trained on, how good it is, and which one it is."""
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
        """The share of images whose label, int64 ``[n]``, is the likeliest."""
        return float((self.embed(images).classes == labels).double().mean())


def load_classifier(path: Path = SHIPPED) -> Classifier:
    """Load a classifier and its card, ``<name>.json`` beside ``<name>.onnx``.

    Raises:
        EvaluationError: If a file is missing or damaged, or the graph is not the card's.
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
            f"the classifier {path} has the sha256 {digest}, but its card says {expected}: figures "
            f"would not compare; fetch both files again or {TRAIN_AGAIN}"
        )
    return Classifier(start_session(content), card)


def shipped_classifier(image_shape: ImageShape) -> Classifier | None:
    """The classifier in this package, None for images of another shape."""
    classifier = load_classifier()
    return classifier if classifier.image_shape == image_shape else None


def card_path(path: Path) -> Path:
    """The card of the classifier at ``path``."""
    return path.with_suffix(".json")


def _float_batches(images: Tensor) -> Iterator[np.ndarray]:
    for batch in torch.split(images.cpu(), BATCH):
        batch = to_float(batch) if batch.dtype == torch.uint8 else batch.float()
        yield batch.numpy()
