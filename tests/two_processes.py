"""Program of each process in test_distributed.py: ``python two_processes.py FOLDER TASK``.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are in the environment, as torchrun sets them.
"""

import sys
from pathlib import Path

import torch

from latentserve_training import distributed
from latentserve_training.config import parse_config
from latentserve_training.data import ImageData
from latentserve_training.errors import TrainingError
from latentserve_training.models.autoencoder import Autoencoder
from latentserve_training.optim.optimizer import require_finite
from latentserve_training.train import loop
from latentserve_training.train.run_folder import RunFolder


class Stopped(Exception):
    pass


def make_data():
    # 129 = 4 batches of 32 and one of a single image, so the second process gets no image of it.
    images = torch.randint(0, 256, (129 + 20, 1, 8, 8), generator=torch.Generator().manual_seed(5))
    images = images.to(torch.uint8)
    return ImageData(images[:129], images[129:], images[129:], name="noise", sha256="0" * 64)


def make_config(kind, **training):
    return parse_config(
        {
            "name": f"two-{kind}",
            "kind": kind,
            "model": {"latent_dim": 3, "channels": [4]},
            "optimizer": {"warmup_steps": 2, "max_gradient_norm": 1.0},
            "training": {"epochs": 2, "batch_size": 32, "threads": 1} | training,
        }
    )


def train(kind, folder, resume=False, **training):
    """Train, and return the weights in this process's memory at the end."""
    models = []
    original = loop.build_model
    loop.build_model = lambda *arguments: models.append(original(*arguments)) or models[0]
    try:
        loop.train(make_config(kind, **training), make_data(), RunFolder(folder), resume)
    finally:
        loop.build_model = original
    return models[0].state_dict()


def train_in_two_parts(folder):
    """Stop a run after its first epoch in every process, and resume it."""
    original = loop._validate_once

    def validate_and_stop(run):
        if run.epoch == 1:
            raise Stopped
        return original(run)

    loop._validate_once = validate_and_stop
    try:
        train("vae", folder)
        raise AssertionError("the run was not stopped")
    except Stopped:
        pass
    finally:
        loop._validate_once = original
    distributed.wait_for_all()
    return train("vae", folder, resume=True)


def with_a_bad_loss(calls_until_bad, action):
    """Replace the result of one call of ``losses`` in the second process."""
    original, calls = Autoencoder.losses, []

    def losses(self, images, generator):
        calls.append(1)
        given = original(self, images, generator)
        if distributed.rank() == 1 and len(calls) == calls_until_bad:
            return action(given)
        return given

    Autoencoder.losses = losses
    return original


def nan_loss(given):
    return given | {"loss": given["loss"] * float("nan"), "squared_error": torch.tensor(torch.inf)}


def die(given):
    raise SystemExit(3)


def succeed(folder):
    results = {
        "autoencoder": train("autoencoder", folder / "autoencoder"),
        "vae": train("vae", folder / "vae"),
        "resumed": train_in_two_parts(folder / "resumed"),
    }
    original = with_a_bad_loss(3, nan_loss)
    results["skipped"] = train("autoencoder", folder / "skipped")
    Autoencoder.losses = original
    with_a_bad_loss(3, nan_loss)
    try:
        train("autoencoder", folder / "refused", max_skipped_steps=0)
    except TrainingError as error:
        results["refused"] = str(error)
    rank = distributed.rank()
    try:
        require_finite("the slope", torch.tensor([1.0, [3.0, float("inf")][rank]]))
    except TrainingError as error:
        results["disagreed"] = str(error)
    distributed.local_rows(torch.arange(3))  # two rows of three, and one
    results["mean"] = distributed.means_over_batch([[1.0, 4.0][rank]])
    torch.save(results, folder / f"results-{distributed.rank()}.pt")


def fail(folder):
    with_a_bad_loss(3, die)
    train("autoencoder", folder / "failed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join("cpu")
    try:
        {"succeed": succeed, "fail": fail}[sys.argv[2]](Path(sys.argv[1]))
    except TrainingError as failure:
        sys.exit(f"error: {failure}")
    distributed.leave()
