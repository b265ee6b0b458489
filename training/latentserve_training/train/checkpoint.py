"""Checkpoints: the complete state of a run, from which it can be resumed exactly.

Only tensors and plain values are stored, and only those are loaded (``weights_only=True``): a
checkpoint from an untrusted source can hold wrong values, but it cannot run code.
"""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentserve_training.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a number of complete epochs."""

    epoch: int  # completed epochs
    config: dict[str, Any]
    image_shape: tuple[int, int, int]
    data_sha256: str
    model: dict[str, Tensor]
    optimizers: dict[str, Any]
    random_state: Tensor  # of the generator for shuffling and noise
    best_epoch: int
    best_loss: float
    history: list[dict[str, Any]]  # one entry per epoch, as in metrics.jsonl
    processes: int = 1  # that train the model; their noise depends on this number


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a temporary file and rename it to ``path``, so a crash cannot leave a partial file."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **vars(checkpoint)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, with its tensors on the CPU.

    Raises:
        CheckpointError: If it is missing, damaged or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist; train the model first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != FORMAT:
            raise CheckpointError(f"{path} was written by another version; train again")
        content.pop("schedulers", None)  # field of older checkpoints, no longer used
        return Checkpoint(**content)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is damaged ({first_line}); train again") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of latentserve-training") from error
