"""Trains the classifier for sample metrics and writes it as ONNX with a card.

The network has a few convolutions with batch normalisation (folded into them by the export) and one
hidden layer, whose activations are the features. Random shifts of the images improve the accuracy
as much as a deeper network. ``metrics/classifier.py`` reads the result.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from latentserve_training.config import PRESETS_FOLDER, parse_values, read_preset
from latentserve_training.data import ImageData
from latentserve_training.data.config import DataConfig
from latentserve_training.errors import ConfigError, DataError
from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.graphs.spec import Graph
from latentserve_training.metrics.classifier import Classifier, card_path, load_classifier
from latentserve_training.optim.lr_schedule import learning_rate_factor
from latentserve_training.optim.optimizer import OptimizerConfig, minimise
from latentserve_training.pixels import ImageShape, to_float
from latentserve_training.provenance import library_versions, source_revision
from latentserve_training.train.reproduction import command_of
from latentserve_training.train.run_folder import write_json

KIND = "classifier"
PRESETS = PRESETS_FOLDER / "classifiers"
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The fields of the ``[model]`` table."""

    channels: tuple[int, ...] = (16, 32, 64)  # widths; all but the first stage halve the image
    features: int = 64

    def __post_init__(self) -> None:
        if not self.channels or min(*self.channels, self.features, 1) < 1:
            raise ValueError("channels must not be empty, channels and features 1 or more")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The fields of the ``[training]`` table."""

    epochs: int = 8
    batch_size: int = 128
    threads: int = 1
    max_shift_pixels: int = 2  # largest random shift of the images in each direction

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.threads) < 1:
            raise ValueError("epochs, batch_size and threads must be 1 or more")
        if self.max_shift_pixels < 0:
            raise ValueError("max_shift_pixels must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """All settings of a classifier; the images are given separately."""

    name: str
    kind: str
    seed: int
    model: NetworkConfig
    data: DataConfig
    optimizer: OptimizerConfig
    training: TrainingConfig

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, as in the TOML file."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


class Network(nn.Module):
    """Images ``[n, c, h, w]`` in [0, 1] to features ``[n, d]`` and logits ``[n, classes]``."""

    def __init__(self, image_shape: ImageShape, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise((image_shape[0], *config.channels))):
            stride = 1 if index == 0 else 2
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.stages = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            width = self.stages.eval()(torch.zeros(1, *image_shape)).shape[1]
        self.hidden = nn.Sequential(nn.Linear(width, config.features), nn.ReLU())
        self.head = nn.Linear(config.features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features: Tensor = self.hidden(self.stages(images))
        return features, self.head(features)


def load_classifier_config(preset: str, overrides: Iterable[str] = ()) -> ClassifierConfig:
    """Read the preset of a classifier, by name or ``.toml`` path, and apply overrides.

    Raises:
        ConfigError: If it cannot be read, or a key or value is not valid.
    """
    values = read_preset(preset, overrides, PRESETS)
    if values.get("kind") != KIND:
        raise ConfigError(f"kind is {values.get('kind')!r}; train-classifier needs {KIND!r}")
    tables = {
        "model": NetworkConfig,
        "data": DataConfig,
        "optimizer": OptimizerConfig,
        "training": TrainingConfig,
    }
    return ClassifierConfig(**parse_values(values, tables))


def train_classifier(config: ClassifierConfig, data: ImageData, out: Path) -> Classifier:
    """Train, export to ``out`` and write the card next to it; the test images are used once.

    Raises:
        DataError: If there are no labels.
    """
    if data.labels is None:
        raise DataError(
            f"{data.name} has no labels, which training a classifier needs: put "
            "train-labels-idx1-ubyte and t10k-labels-idx1-ubyte next to the images"
        )
    started_s, revision = time.monotonic(), source_revision()
    torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.seed)
    classes = int(max(data.labels.all_train.max(), data.labels.test.max())) + 1
    network = Network(data.image_shape, config.model, classes)
    optimizer = torch.optim.Adam(
        network.parameters(),
        config.optimizer.learning_rate,
        (config.optimizer.beta1, config.optimizer.beta2),
    )
    steps = math.ceil(len(data.train) / config.training.batch_size) * config.training.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, learning_rate_factor(config.optimizer, steps)
    )
    generator = torch.Generator().manual_seed(config.seed)
    for epoch in range(1, config.training.epochs + 1):
        network.train()
        for images, labels in _batches(data.train, data.labels.train, config, epoch, generator):
            _, logits = network(images)
            loss = functional.cross_entropy(logits, labels)
            minimise(loss, optimizer, config.optimizer.max_gradient_norm)
            scheduler.step()
        share = accuracy(network, data.validation, data.labels.validation)
        tqdm.write(f"epoch {epoch}/{config.training.epochs}: validation accuracy {share:.2%}")
    card = {
        "classes": classes,
        "seconds": round(time.monotonic() - started_s, 1),
        "revision": revision,
    }
    return _write(network, config, data, out, card)


def accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    """The accuracy on uint8 images; the network is left in evaluation mode."""
    network.eval()
    correct = 0
    with torch.inference_mode():
        for batch, truth in zip(
            torch.split(images, BATCH), torch.split(labels, BATCH), strict=True
        ):
            correct += int((network(to_float(batch))[1].argmax(1) == truth).sum())
    return correct / len(images)


def shift(images: Tensor, max_pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image ``[n, c, h, w]`` by up to ``max_pixels`` in each direction, padding by 0."""
    count, channels, height, width = images.shape
    padded = functional.pad(images, (max_pixels,) * 4)
    offsets = torch.randint(0, 2 * max_pixels + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height))[:, None, :, None]
    columns = (offsets[1] + torch.arange(width))[:, None, None, :]
    image = torch.arange(count)[:, None, None, None]
    return padded[image, torch.arange(channels)[:, None, None], rows, columns]


def _batches(
    images: Tensor,
    labels: Tensor,
    config: ClassifierConfig,
    epoch: int,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(images), generator=generator)
    progress = tqdm(
        torch.split(order, config.training.batch_size),
        desc=f"epoch {epoch}/{config.training.epochs}",
        unit="batch",
        leave=False,
        disable=None,
    )
    for rows in progress:
        yield (
            shift(to_float(images[rows]), config.training.max_shift_pixels, generator),
            labels[rows],
        )


def _write(
    network: Network,
    config: ClassifierConfig,
    data: ImageData,
    out: Path,
    card: dict[str, Any],
) -> Classifier:
    graph = Graph(out.name, network.eval(), "images", ("features", "logits"), ())
    proto = convert(graph, data.image_shape, latent_dim=0)
    check_parity(proto, graph, data.image_shape, latent_dim=0)
    content = proto.SerializeToString(deterministic=True)
    assert data.labels is not None  # noqa: S101  checked by train_classifier
    channels, height, width = data.image_shape
    card = {
        "name": config.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "image": {"channels": channels, "height": height, "width": width},
        "features": config.model.features,
        "accuracy": {
            "value": 100.0 * accuracy(network, data.test, data.labels.test),
            "unit": "% of the test images",
            "samples": len(data.test),
        },
        "data": {"name": data.name, "sha256": data.sha256, "train_samples": len(data.train)},
        "config": config.as_dict(),
        "command": _command(config, data),
        "libraries": library_versions(),
        **card,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    write_json(card_path(out), card)
    return load_classifier(out)


def _command(config: ClassifierConfig, data: ImageData) -> str:
    presets = {
        path.stem: load_classifier_config(str(path)).as_dict() for path in PRESETS.glob("*.toml")
    }
    return command_of("train-classifier", config.as_dict(), presets, data.name)
