"""The files of one training run, ``runs/<name>/``, and which of them may be overwritten."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_training.errors import CheckpointError
from latentserve_training.nn.gaussian_mixture import MIXTURE_FILE


@dataclass(frozen=True)
class RunFolder:
    """Where each file of a run lies."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint after the last epoch, to resume from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation loss, to export."""
        return self.path / "best.pt"

    @property
    def evaluation(self) -> Path:
        """Metrics on the test images beside their baselines, and where the data came from."""
        return self.path / "evaluation.json"

    @property
    def examples(self) -> Path:
        """A few test images, uint8: the golden inputs of the export."""
        return self.path / "examples.npz"

    @property
    def mixture(self) -> Path:
        """The Gaussian mixture that Sample draws from, where the run fits one."""
        return self.path / MIXTURE_FILE

    def plot(self, name: str) -> Path:
        """The PNG of this name."""
        return self.path / f"{name}.png"

    def create(self, resume: bool) -> None:
        """Make the folder.

        Raises:
            CheckpointError: If it holds a run already and this one is not to resume it, or if
                there is none to resume.
        """
        if resume and not self.last.is_file():
            raise CheckpointError(f"{self.path} holds no run to resume; leave out --resume")
        if not resume and self.last.is_file():
            raise CheckpointError(
                f"{self.path} already holds a run; add --resume to continue it, or choose another "
                "folder with --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
