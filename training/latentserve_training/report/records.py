"""Records of runs: small JSON files with the metrics and the provenance of each run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_training.config import parse_config
from latentserve_training.errors import CheckpointError
from latentserve_training.provenance import UNKNOWN, machine
from latentserve_training.report.finish_run import training_command
from latentserve_training.train.run_folder import RunFolder, write_json
from latentserve_training.train.trained_model import read_evaluation

Record = dict[str, Any]
"""The content of one file, as returned by :func:`record_of`."""


@dataclass(frozen=True)
class Records:
    """A folder of records."""

    folder: Path

    def read(self) -> list[Record]:
        """Read all records, sorted by name and seed.

        Raises:
            CheckpointError: If one cannot be read.
        """
        records = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                records.append(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise CheckpointError(f"the record {path} cannot be read: {error}") from error
        return sorted(records, key=lambda record: (record["config"]["name"], record["seed"]))

    def add(self, record: Record) -> Path:
        """Write a record; one of the same name and seed is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seed = f"-seed{record['seed']}" if record["seed"] else ""
        path = self.folder / f"{record['config']['name']}{seed}.json"
        write_json(path, record)
        return path


def record_of(run: RunFolder, on_this_machine: bool = False) -> Record:
    """The record of a finished run: metrics, command, machine and versions.

    Args:
        run: Run folder written by the command ``train``.
        on_this_machine: Record this machine if the run does not name the one that trained it.

    Raises:
        CheckpointError: If the run is not finished or cannot be read.
        ConfigError: If its configuration is not valid in this version of the code.
    """
    evaluation = read_evaluation(run)
    try:
        values = json.loads(run.config.read_text(encoding="utf-8"))
        lines = run.metrics.read_text(encoding="utf-8").splitlines()
        epochs = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run.path} is not a run folder: {error}") from error
    config = parse_config(values)
    seconds = sum(epoch.get("seconds", 0.0) for epoch in epochs)
    fallback = machine(config.training.device) if on_this_machine else {"cpu": UNKNOWN}
    return {
        "config": config.as_dict(),
        "seed": config.seed,
        "data": evaluation["data"],
        "epochs": len(epochs),
        "best_epoch": evaluation["best_epoch"],
        "training_seconds": round(evaluation.get("training_seconds", seconds), 1),
        "machine": evaluation.get("machine", fallback),
        "command": evaluation.get("command")
        or training_command(config, evaluation["data"]["name"]),
        "libraries": evaluation["libraries"],
        "revision": evaluation["revision"],
        "metrics": evaluation["metrics"],
    }
