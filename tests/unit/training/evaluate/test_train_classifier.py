import dataclasses
import json

import pytest
import torch

from latentserve_training.errors import ConfigError, DataError
from latentserve_training.evaluate.train_classifier import (
    load_classifier_config,
    shift,
    train_classifier,
)
from latentserve_training.metrics.classifier import card_path, load_classifier

FEW = [
    "model.channels=[3,4]",
    "model.features=4",
    "training.epochs=1",
    "training.batch_size=40",
]


def test_the_card_says_how_it_was_made_and_how_good_it_is(classifier_file, image_data):
    card = json.loads(card_path(classifier_file).read_text(encoding="utf-8"))
    assert card["image"] == {"channels": 1, "height": 12, "width": 12}
    assert (card["classes"], card["features"]) == (2, 5)
    assert card["data"] == {"name": "blobs", "sha256": "0" * 64, "train_samples": 160}
    assert card["command"].startswith("latentserve-training train-classifier --config mnist --data")
    assert "--set 'model.channels=[4, 6]'" in card["command"]
    right = load_classifier(classifier_file).accuracy(image_data.test, image_data.labels.test)
    assert card["accuracy"]["value"] == pytest.approx(100 * right)
    assert card["accuracy"]["samples"] == 60


def test_the_same_seed_gives_the_same_classifier(tmp_path, image_data):
    digests = [
        train_classifier(
            load_classifier_config("mnist", [*FEW, f"seed={seed}"]),
            image_data,
            tmp_path / str(turn) / "c.onnx",
        ).card["sha256"]
        for turn, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_without_labels_there_is_nothing_to_learn(tmp_path, image_data):
    config = load_classifier_config("mnist", FEW)
    with pytest.raises(DataError, match="blobs has no labels"):
        train_classifier(config, dataclasses.replace(image_data, labels=None), tmp_path / "c.onnx")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", "did you mean 'training.epochs'"),
        ("training.epochs=0", "epochs, batch_size and threads must be 1 or more"),
        ("training.max_shift_pixels=-1", "max_shift_pixels must be 0 or more"),
        ("model.channels=[]", "channels must not be empty"),
        ("kind=vae", "train-classifier needs 'classifier'"),
    ],
)
def test_a_wrong_setting_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_classifier_config("mnist", [override])


def test_a_shift_moves_the_image_and_brings_in_zeros():
    images = torch.rand(40, 2, 7, 9) + 0.1
    generator = torch.Generator().manual_seed(0)
    shifted = shift(images, 2, generator)
    assert shifted.shape == images.shape
    seen = set()
    for before, after in zip(images, shifted, strict=True):
        candidates = {
            (down, right): torch.zeros_like(before)
            for down in range(-2, 3)
            for right in range(-2, 3)
        }
        for (down, right), moved in candidates.items():
            moved[:, max(down, 0) : 7 + min(down, 0), max(right, 0) : 9 + min(right, 0)] = before[
                :, max(-down, 0) : 7 + min(-down, 0), max(-right, 0) : 9 + min(-right, 0)
            ]
        seen |= {by for by, moved in candidates.items() if torch.equal(moved, after)}
    assert len(seen) > 15
    assert torch.equal(shift(images, 0, generator), images)
