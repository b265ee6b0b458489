"""Evaluates a finished run or an export and stores the metrics: the command ``evaluate``.

A stored metric is never replaced by one from fewer images, or by one without a baseline if it has a
baseline.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from latentserve_training.config import RunConfig, parse_config
from latentserve_training.data import ImageData, Labels, load_data
from latentserve_training.errors import DataError, EvaluationError
from latentserve_training.evaluate.likelihood import LOG_LIKELIHOOD_SAMPLES, log_likelihood_nats
from latentserve_training.evaluate.metric import SAMPLES, Metric, MetricFunction, Subject
from latentserve_training.evaluate.suite import METRICS, applicable, measure
from latentserve_training.export.reader import MANIFEST_FILE, load_export
from latentserve_training.metrics.classifier import Classifier, load_classifier
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.run_folder import RunFolder, write_json
from latentserve_training.train.trained_model import (
    load_finished_model,
    load_model,
    read_evaluation,
)

LOG_LIKELIHOOD = "test_log_likelihood_nats"


@dataclass(frozen=True)
class Request:
    """Which metrics to compute, and how."""

    metrics: Sequence[str] = ()  # empty for all metrics of the model
    samples: int = SAMPLES  # samples from the prior
    images: int = 0  # number of test images; 0 for all
    # k of the importance-weighted bound of log p(x), and the number of test images for it; 0 for k
    # as at the end of training, and for all images. If either is set, a stored value is replaced.
    importance_samples: int = 0
    importance_images: int = 0
    classifier: Path | None = None  # None for the shipped one, if it fits
    store: bool = True


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    metrics: dict[str, Metric]  # all stored metrics, earlier and new, in the order of the table
    measured: tuple[str, ...]  # names of the new metrics
    omitted: dict[str, str]  # name → reason why it was not measured or not stored


@dataclass(frozen=True)
class _Target:
    """A run or an export: its model, its stored metrics, and how to store new ones."""

    config: RunConfig
    data_sha256: str
    subject: Callable[[ImageData], Subject]
    stored: dict[str, Any]
    store: Callable[[dict[str, Any]], None]
    is_export: bool


def evaluate_folder(folder: Path, source: Path | str | None, request: Request) -> Evaluation:
    """Evaluate the model in a folder and store the metrics there.

    Args:
        folder: Folder written by ``train`` or ``export``.
        source: Source of the images that the model was trained on, as for ``load_data``.
        request: Which metrics to compute.

    Raises:
        EvaluationError: If the folder is neither, or a metric cannot be computed.
        DataError: If the images cannot be read, or the model was trained on other images.
    """
    target = _open(folder)
    data = load_data(target.config.data, target.config.seed, source)
    if data.sha256 != target.data_sha256:
        raise DataError(
            f"the training images of {data.name} are not those that {folder} was trained on, so "
            "its training images may be among the test images; give the right ones with --data"
        )
    subject = dataclasses.replace(
        target.subject(_first(data, request.images)),
        classifier=_classifier(request, data),
        samples=request.samples,
    )
    functions = _functions(request)
    names = _names([*request.metrics, *functions] if request.metrics else (), subject)
    omitted = {}
    if not (request.metrics or functions) and LOG_LIKELIHOOD in target.stored:
        # The stored value may be from many more importance samples, which take long.
        names = tuple(name for name in names if name != LOG_LIKELIHOOD)
        omitted[LOG_LIKELIHOOD] = "kept as stored; name it with --metrics to measure it again"
    print(
        f"measuring {len(names)} metrics of {target.config.name} on {len(subject.data.test):,} "
        f"test images of {data.name}",
        flush=True,
    )
    measured = measure(subject, names, progress=True, functions=functions)
    for name in set(names) - set(measured):
        omitted[name] = "not measured: it needs labels, or a classifier of such images"
    comparable = {name: old for name, old in target.stored.items() if name not in functions}
    merged, kept = _merge(comparable, measured, target.is_export)
    merged = target.stored | merged
    if request.store:
        target.store(merged)
    order = dict.fromkeys([*applicable(subject.model), *merged])
    return Evaluation(
        {name: Metric.from_manifest(merged[name]) for name in order if name in merged},
        tuple(name for name in measured if name not in kept),
        omitted | kept,
    )


def _classifier(request: Request, data: ImageData) -> Classifier | None:
    if request.classifier is None:
        return None
    classifier = load_classifier(request.classifier)
    if classifier.image_shape != data.image_shape:
        raise EvaluationError(
            f"{request.classifier} takes images of {classifier.image_shape}, not "
            f"{data.image_shape}; train a classifier on these images with train-classifier"
        )
    return classifier


def _names(wanted: Sequence[str], subject: Subject) -> tuple[str, ...]:
    """The requested metrics; all metrics that the model can have if none is requested."""
    possible = applicable(subject.model)
    for name in wanted:
        if name in possible:
            continue
        if name not in METRICS:
            close = difflib.get_close_matches(name, [*possible, *METRICS], 1, cutoff=0.0)
            raise EvaluationError(f"unknown metric {name!r}; did you mean {close[0]!r}?")
        raise EvaluationError(
            f"{name} is not a metric of a model of kind {subject.model.kind}, which has: "
            f"{', '.join(possible)}"
        )
    return tuple(dict.fromkeys(wanted)) or possible


def _functions(request: Request) -> dict[str, MetricFunction]:
    """The functions of metrics that are computed differently than at the end of training."""
    if not (request.importance_samples or request.importance_images):
        return {}
    return {
        LOG_LIKELIHOOD: partial(
            log_likelihood_nats,
            samples=request.importance_samples or LOG_LIKELIHOOD_SAMPLES,
            images=request.importance_images,
        )
    }


def _merge(
    stored: dict[str, Any], measured: dict[str, Metric], is_export: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """All metrics to store, and the reasons why some measured ones are not stored."""
    merged, kept = dict(stored), {}
    for name, metric in measured.items():
        before = stored.get(name)
        if not isfinite(metric.value):
            if not is_export:
                raise EvaluationError(f"{name} is {metric.value}; train the model again")
            kept[name] = "it needs more than the exported graphs; evaluate the run instead"
        elif before and before["samples"] > metric.samples:
            kept[name] = (
                f"the stored value is from {before['samples']:,} samples, the new one from "
                f"{metric.samples:,}"
            )
        elif before and before["baseline"] and metric.baseline_value is None:
            kept[name] = "the stored value has a baseline, which an export cannot provide"
        else:
            merged[name] = metric.as_manifest()
    return merged, {
        name: reason + ("; kept as stored" if name in stored else "")
        for name, reason in kept.items()
    }


def _first(data: ImageData, images: int) -> ImageData:
    """The data with only the first test images; 0 for all."""
    if not images:
        return data
    labels = data.labels and Labels(
        data.labels.train, data.labels.validation, data.labels.test[:images]
    )
    return dataclasses.replace(data, test=data.test[:images], labels=labels)


def _open(folder: Path) -> _Target:
    if (folder / MANIFEST_FILE).is_file():
        return _open_export(folder)
    run = RunFolder(folder)
    if run.config.is_file() or run.best.is_file():
        return _open_run(run)
    versions = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))
    hint = f"; did you mean {versions[-1]}?" if versions else ""
    raise EvaluationError(
        f"{folder} is neither a run (with {run.best.name}) nor an export (with {MANIFEST_FILE})"
        f"{hint}"
    )


def _open_export(folder: Path) -> _Target:
    export = load_export(folder)
    return _Target(
        config=export.config,
        data_sha256=export.manifest["training"]["data"]["sha256"],
        subject=lambda data: Subject(export.model, data, decoder=export.decoder),
        stored=export.manifest["metrics"],
        store=export.store_metrics,
        is_export=True,
    )


def _open_run(run: RunFolder) -> _Target:
    checkpoint, evaluation = load_checkpoint(run.best), read_evaluation(run)
    config = parse_config(checkpoint.config)
    reference = RunFolder(run.path / "reference")
    best = load_checkpoint(reference.best) if reference.best.is_file() else None

    def subject(data: ImageData) -> Subject:
        reference_model = None if best is None else load_model(parse_config(best.config), best)
        return Subject(load_finished_model(config, checkpoint, run), data, reference_model)

    return _Target(
        config=config,
        data_sha256=checkpoint.data_sha256,
        subject=subject,
        stored=evaluation["metrics"],
        store=lambda metrics: write_json(run.evaluation, evaluation | {"metrics": metrics}),
        is_export=False,
    )
