"""Tiny images, configurations and a finished run, so that each test takes milliseconds."""

import functools

import numpy as np
import pytest
import torch

from latentserve_training.config import parse_config
from latentserve_training.data import ImageData, Labels
from latentserve_training.evaluate.train_classifier import load_classifier_config, train_classifier
from latentserve_training.export.publish import export_run
from latentserve_training.report.finish_run import finish_run
from latentserve_training.train.loop import train
from latentserve_training.train.run_folder import RunFolder

SIZE = 12
CONVOLUTIONAL = {"latent_dim": 3, "channels": [4, 6]}
MODELS = {  # of the kinds with fields of their own
    "linear": {"latent_dim": 3},
    "contractive": {"latent_dim": 3},
    "sparse": {"latent_dim": 6, "active": 2, "anneal_steps": 4},
    "gan": CONVOLUTIONAL | {"discriminator_channels": [4, 6], "mapping": [5], "r1_interval": 2},
    "vae-gan": CONVOLUTIONAL | {"discriminator_channels": [4, 6], "r1_interval": 2},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def blobs(count, seed):
    """uint8 images with one bright spot each: as compressible as digits, and fast to generate."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(3, SIZE - 3, (count, 2, 1, 1))
    width = rng.uniform(1.0, 2.5, (count, 1, 1))
    y, x = np.mgrid[:SIZE, :SIZE]
    squared_distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    pixels = 255 * np.exp(-squared_distance / (2 * width**2))
    return torch.from_numpy(pixels.astype(np.uint8)[:, None])


def sides(images):
    """Whether the spot is in the right half: a class that a linear classifier can separate."""
    brightness = images.double().sum((1, 2))
    return (brightness[:, SIZE // 2 :].sum(1) > brightness[:, : SIZE // 2].sum(1)).long()


@pytest.fixture(scope="session")
def image_data():
    return ImageData(
        train=blobs(160, 0),
        validation=blobs(40, 1),
        test=blobs(60, 2),
        name="blobs",
        sha256="0" * 64,
        labels=Labels(*(sides(blobs(count, seed)) for count, seed in ((160, 0), (40, 1), (60, 2)))),
    )


@pytest.fixture(scope="session")
def make_config():
    def make(kind="autoencoder", **tables):
        values = {
            "name": f"tiny-{kind}",
            "kind": kind,
            "seed": 3,
            "model": MODELS.get(kind, CONVOLUTIONAL),
            "optimizer": {"warmup_steps": 4},
            "training": {"epochs": 2, "batch_size": 32, "threads": 1},
        }
        for table, changes in tables.items():
            values[table] = values.get(table, {}) | changes
        return parse_config(values)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, make_config, image_data):
    """One run of each kind, shared by all tests; copy it before changing it."""

    @functools.cache
    def finish_once(kind, components):
        config = make_config(kind, sampler={"components": components})
        folder = RunFolder(tmp_path_factory.mktemp("runs") / kind)
        best = train(config, image_data, folder)
        finish_run(config, image_data, best, best.history, folder)
        return folder

    def finish(kind, components=0):
        return finish_once(kind, components)

    return finish


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory, finished_run):
    """The export of that run, shared by all tests; copy it before changing it."""

    @functools.cache
    def export_once(kind, components):
        folder = tmp_path_factory.mktemp("exports")
        return export_run(finished_run(kind, components), folder, revision="none").folder

    def export(kind, components=0):
        return export_once(kind, components)

    return export


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory, image_data):
    """A classifier of the side of the spot: an ONNX file with its card."""
    changes = {
        "model": {"channels": [4, 6], "features": 5},
        "training": {"epochs": 12, "batch_size": 20, "max_shift_pixels": 0},
        "optimizer": {"warmup_steps": 4, "learning_rate": 1e-2},
    }
    overrides = [
        f"{table}.{key}={value}"
        for table, values in changes.items()
        for key, value in values.items()
    ]
    path = tmp_path_factory.mktemp("classifier") / "sides.onnx"
    train_classifier(load_classifier_config("mnist", overrides), image_data, path)
    return path
