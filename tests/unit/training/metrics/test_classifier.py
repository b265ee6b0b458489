import hashlib
import json
import shutil

import pytest
import torch

from latentserve_training.data import load_data
from latentserve_training.data.config import DataConfig
from latentserve_training.errors import EvaluationError
from latentserve_training.metrics import classifier as classifier_module
from latentserve_training.metrics.classifier import (
    SHIPPED,
    card_path,
    load_classifier,
    shipped_classifier,
)
from latentserve_training.pixels import to_float

MNIST_TRAIN_SHA256 = "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757"


@pytest.fixture
def copied(classifier_file, tmp_path):
    for path in (classifier_file, card_path(classifier_file)):
        shutil.copy(path, tmp_path)
    return tmp_path / classifier_file.name


def test_features_and_classes_of_both_kinds_of_pixels(classifier_file, image_data, monkeypatch):
    monkeypatch.setattr(classifier_module, "BATCH", 17)  # does not divide the 60 test images
    classifier = load_classifier(classifier_file)
    assert (classifier.image_shape, classifier.classes) == ((1, 12, 12), 2)
    stored = classifier.embed(image_data.test)
    floats = classifier.embed(to_float(image_data.test))
    assert torch.equal(stored.features, floats.features)
    assert stored.features.shape == (60, 5)
    assert torch.equal(stored.classes, floats.classes)
    assert classifier.accuracy(image_data.test, image_data.labels.test) > 0.9


def test_an_altered_graph_is_refused(copied):
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"its card says [0-9a-f]{64}: metrics would not"):
        load_classifier(copied)


@pytest.mark.parametrize("card", [None, "{", "{}", "[]"])
def test_a_classifier_without_a_card_is_refused(copied, card):
    card_path(copied).unlink()
    if card is not None:
        card_path(copied).write_text(card, encoding="utf-8")
    with pytest.raises(EvaluationError, match=r"sides\.json cannot be read .*train-classifier"):
        load_classifier(copied)


def test_the_shipped_classifier_is_what_its_card_says():
    card = json.loads(card_path(SHIPPED).read_text(encoding="utf-8"))
    content = SHIPPED.read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["bytes"] == len(content) < 1_000_000
    assert card["data"] == {"name": "MNIST", "sha256": MNIST_TRAIN_SHA256, "train_samples": 57_000}
    assert card["accuracy"]["samples"] == 10_000
    assert card["accuracy"]["value"] >= 99.0
    assert not card["revision"].endswith("-dirty")
    assert card["command"] == ("latentserve-training train-classifier --config mnist --data DIR")


def test_the_shipped_classifier_is_accurate_on_digits():
    """In-sample: these digits are among those it was trained on. t10k is not in this repository."""
    data = load_data(DataConfig(), 0, None)
    classifier = shipped_classifier(data.image_shape)
    assert classifier.accuracy(data.test, data.labels.test) > 0.99


def test_for_other_shapes_there_is_no_shipped_classifier(image_data):
    assert shipped_classifier(image_data.image_shape) is None
