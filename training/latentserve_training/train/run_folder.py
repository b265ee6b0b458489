"""Run folder, ``runs/<name>/``: paths of its files, and atomic writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_training.errors import CheckpointError
from latentserve_training.nn.gaussian_mixture import MIXTURE_FILE


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """The losses of each epoch, one JSON object per line."""
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
        """Metrics on the test images with their baselines, and the provenance of the run."""
        return self.path / "evaluation.json"

    @property
    def examples(self) -> Path:
        """A few test images, uint8, which are the golden inputs of the export."""
        return self.path / "examples.npz"

    @property
    def mixture(self) -> Path:
        """The Gaussian mixture that is the prior, if the run fits one."""
        return self.path / MIXTURE_FILE

    def plot(self, name: str) -> Path:
        """The plot of this name, a PNG file."""
        return self.path / f"{name}.png"

    def create(self, resume: bool) -> None:
        """Create the folder.

        Raises:
            CheckpointError: If it already holds a run and ``resume`` is False, or if it holds none
                and ``resume`` is True.
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
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file, which is then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
