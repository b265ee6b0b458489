"""Completes a run: evaluates the best checkpoint and writes metrics, plots and example images."""

import io
from dataclasses import replace
from typing import Any

import numpy as np

from latentserve_training.config import PRESETS_FOLDER, RunConfig, load_config
from latentserve_training.data import ImageData
from latentserve_training.errors import ConfigError
from latentserve_training.evaluate.metric import Metric, Subject
from latentserve_training.evaluate.suite import evaluate
from latentserve_training.models.base import LatentModel
from latentserve_training.models.registry import KINDS, kind_of
from latentserve_training.provenance import library_versions, machine, source_revision
from latentserve_training.report.plots import draw_curves
from latentserve_training.report.registry import FIGURES
from latentserve_training.train.checkpoint import Checkpoint
from latentserve_training.train.fit_prior import fit_sampler
from latentserve_training.train.loop import train
from latentserve_training.train.reproduction import command_of
from latentserve_training.train.run_folder import RunFolder, write_bytes, write_json
from latentserve_training.train.trained_model import load_model

EXAMPLE_IMAGES = 8


def train_reference(config: RunConfig, data: ImageData, folder: RunFolder) -> LatentModel | None:
    """Train the reference model of the kind in the folder ``reference`` of the run.

    Returns:
        The reference model; None if the baselines of the kind have a closed form.
    """
    reference = KINDS[config.kind].reference
    if reference is None:
        return None
    model = reference(config.model)
    config = replace(config, kind=kind_of(model), model=model)
    print(f"training the reference model of {config.name}, its baseline", flush=True)
    reference_folder = RunFolder(folder.path / "reference")
    # A reference that is complete is not trained again; an interrupted one is resumed.
    best = train(config, data, reference_folder, resume=reference_folder.last.is_file())
    return load_model(config, best)


def finish_run(
    config: RunConfig,
    data: ImageData,
    best: Checkpoint,
    history: list[dict[str, Any]],
    folder: RunFolder,
) -> dict[str, Metric]:
    """Evaluate the best checkpoint and write plots, ``evaluation.json`` and ``examples.npz``."""
    model = load_model(config, best)
    if config.sampler.components:
        print(f"fitting {config.sampler.components} Gaussians to the latents", flush=True)
        mixture = fit_sampler(
            model, data.train, config.sampler, config.seed, config.training.threads
        )
        write_bytes(folder.mixture, mixture.to_bytes())
        model.set_mixture(mixture)
    reference = train_reference(config, data, folder)
    metrics = evaluate(model, data, reference)
    subject = Subject(model, data, reference)
    draw_curves(history, best.epoch, config.name, folder.plot("curves"))
    for name in model.plots:
        FIGURES[name](subject, metrics, config.name, folder.plot(name))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=data.test[:EXAMPLE_IMAGES].numpy())
    write_bytes(folder.examples, buffer.getvalue())
    write_json(
        folder.evaluation,
        {
            "best_epoch": best.epoch,
            "data": {
                "name": data.name,
                "sha256": data.sha256,
                "train_samples": len(data.train),
            },
            "metrics": {name: metric.as_manifest() for name, metric in metrics.items()},
            "training_seconds": round(sum(row.get("seconds", 0.0) for row in history), 1),
            "machine": machine(config.training.device),
            "command": training_command(config, data.name),
            "libraries": library_versions(),
            "revision": source_revision(),
        },
    )
    return metrics


def training_command(config: RunConfig, data_name: str) -> str:
    """The command line that reproduces a run, from the nearest preset."""
    presets = {}
    for path in PRESETS_FOLDER.glob("*.toml"):
        try:
            presets[path.stem] = load_config(str(path)).as_dict()
        except ConfigError:  # an invalid preset must not fail a finished run
            continue
    return command_of("train", config.as_dict(), presets, data_name)


def metrics_table(metrics: dict[str, Metric]) -> str:
    """A text table of metrics and their baselines, one line each."""
    header = ("metric", "value", "baseline", "", "unit")
    lines = [header] + [
        (
            name,
            f"{metric.value:.5g}",
            "-" if metric.baseline_value is None else f"{metric.baseline_value:.5g}",
            _verdict(metric),
            metric.unit,
        )
        for name, metric in metrics.items()
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _verdict(metric: Metric) -> str:
    if metric.baseline_name is None:
        return ""
    return f"({metric.baseline_name}{', NOT beaten' if metric.beats_baseline is False else ''})"
