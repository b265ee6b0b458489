"""Checkpoints: everything that a run needs to go on as if it had never stopped.

Only tensors and plain values are stored, and only those are read back (``weights_only=True``): a
checkpoint from somebody else can hold wrong numbers, but no code.
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
    """The state after a whole number of epochs."""

    epoch: int  # epochs finished
    config: dict[str, Any]
    image_shape: tuple[int, int, int]
    data_sha256: str
    model: dict[str, Tensor]
    optimizers: dict[str, Any]
    random_state: Tensor  # of the generator that shuffles and draws noise
    best_epoch: int
    best_loss: float
    history: list[dict[str, Any]]  # one row per epoch, as in metrics.jsonl
    processes: int = 1  # that trained together; the noise they draw depends on it


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write it beside ``path`` and rename: a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **vars(checkpoint)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, tensors onto the CPU.

    Raises:
        CheckpointError: If it is missing, damaged or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; train the model first")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != FORMAT:
            raise CheckpointError(f"{path} was written by another version; train again")
        content.pop("schedulers", None)  # of runs from before the rate was a function of the step
        return Checkpoint(**content)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is damaged ({first_line}); train again") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no checkpoint of this program") from error
