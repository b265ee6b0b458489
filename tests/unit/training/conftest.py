"""Tiny images, configurations and a finished run, so that each test takes milliseconds."""

import functools

import numpy as np
import pytest
import torch

from latentserve_training.config import parse_config
from latentserve_training.data import ImageData
from latentserve_training.loops import train
from latentserve_training.report import finish_run
from latentserve_training.run_folder import RunFolder

SIZE = 12


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def blobs(count, seed):
    """uint8 images of one bright spot each: as compressible as digits, and made in no time."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(3, SIZE - 3, (count, 2, 1, 1))
    width = rng.uniform(1.0, 2.5, (count, 1, 1))
    y, x = np.mgrid[:SIZE, :SIZE]
    squared_distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    pixels = 255 * np.exp(-squared_distance / (2 * width**2))
    return torch.from_numpy(pixels.astype(np.uint8)[:, None])


@pytest.fixture(scope="session")
def image_data():
    return ImageData(
        train=blobs(160, 0),
        validation=blobs(40, 1),
        test=blobs(60, 2),
        name="blobs",
        sha256="0" * 64,
    )


@pytest.fixture(scope="session")
def make_config():
    def make(kind="autoencoder", **tables):
        values = {
            "name": f"tiny-{kind}",
            "kind": kind,
            "seed": 3,
            "model": {"latent_dim": 3, "channels": [4, 6]},
            "optimizer": {"warmup_steps": 4},
            "training": {"epochs": 2, "batch_size": 32, "threads": 1},
        }
        for table, changes in tables.items():
            values[table] = values.get(table, {}) | changes
        return parse_config(values)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, make_config, image_data):
    """One run of each kind for all tests: to change it, copy it first."""

    @functools.cache
    def finish(kind):
        config, folder = make_config(kind), RunFolder(tmp_path_factory.mktemp("runs") / kind)
        best = train(config, image_data, folder)
        finish_run(config, image_data, best, best.history, folder)
        return folder

    return finish
