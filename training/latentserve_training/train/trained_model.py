"""Reader of a finished run: its model, evaluation and example images."""

import json
from typing import Any

import numpy as np
import torch

from latentserve_training.config import RunConfig
from latentserve_training.errors import CheckpointError
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.gaussian_mixture import read_mixture
from latentserve_training.train.checkpoint import Checkpoint
from latentserve_training.train.loop import build_model
from latentserve_training.train.run_folder import RunFolder


def load_model(config: RunConfig, checkpoint: Checkpoint) -> LatentModel:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: If the weights do not fit this kind of model.
    """
    model = build_model(config, checkpoint.image_shape)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the model: {error}") from error
    return model.eval()


def load_finished_model(
    config: RunConfig, checkpoint: Checkpoint, folder: RunFolder
) -> LatentModel:
    """The model of a checkpoint with the mixture that was fitted to its latents, if any.

    Raises:
        CheckpointError: If the weights do not fit, or the mixture is missing.
    """
    model = load_model(config, checkpoint)
    if config.sampler.components:
        model.set_mixture(read_mixture(folder.mixture))
    return model


def read_evaluation(folder: RunFolder) -> dict[str, Any]:
    """Read ``evaluation.json``, written at the end of a run.

    Raises:
        CheckpointError: If the run has not been finished.
    """
    try:
        content: dict[str, Any] = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder.path} has no readable evaluation.json; finish the run with train --resume"
        ) from error
    return content


def read_examples(folder: RunFolder) -> torch.Tensor:
    """Read the example test images, uint8 ``[n, c, h, w]``.

    Raises:
        CheckpointError: If the run has not been finished.
    """
    try:
        with np.load(folder.examples) as arrays:
            return torch.from_numpy(arrays["images"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder.path} has no readable examples.npz; finish the run with train --resume"
        ) from error
