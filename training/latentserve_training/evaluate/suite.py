"""Measures a trained model on the test images, each figure beside its baseline.

A model names the metrics that suit its kind (``LatentModel.metrics``); ``METRICS`` computes them.
Those are measured after every training, in a minute at most; the others that it can have
(:func:`applicable`) are left to the ``evaluate`` command.
Baselines are fitted on all training images, the validation images included: they see no less than
the model did.
"""

import time
from collections.abc import Iterable, Mapping

import torch
from tqdm import tqdm

from latentserve_training.data import ImageData
from latentserve_training.evaluate import (
    generation,
    latency,
    latents,
    likelihood,
    reconstruction,
    representation,
    twin,
)
from latentserve_training.evaluate.metric import Metric, MetricFunction, Subject
from latentserve_training.models.base import SAMPLE_METRICS, LatentModel

METRICS: dict[str, MetricFunction] = (
    reconstruction.METRICS
    | likelihood.METRICS
    | latents.METRICS
    | representation.METRICS
    | generation.METRICS
    | latency.METRICS
    | twin.METRICS
)
OF_ENCODERS = ("test_reconstruction_frechet", *representation.METRICS)


def metric_function(name: str) -> MetricFunction:
    """What measures the figure of that name: one of METRICS, or one of them at a noise level."""
    return METRICS.get(name) or reconstruction.metric_at_level(name)


def evaluate(
    model: LatentModel, data: ImageData, reference: LatentModel | None = None
) -> dict[str, Metric]:
    """Compute the model's metrics; the models are left in evaluation mode, on the CPU."""
    for each in (model, reference):
        if each is not None:
            each.eval().cpu()
    return measure(Subject(model, data, reference), model.metrics)


def measure(
    subject: Subject,
    names: Iterable[str],
    progress: bool = False,
    functions: Mapping[str, MetricFunction] | None = None,
) -> dict[str, Metric]:
    """Compute these metrics; one that the subject does not have is left out.

    Args:
        subject: A model in evaluation mode, on the CPU.
        names: What :func:`metric_function` takes.
        functions: To measure some of them in another way.
        progress: Say what is being measured, and how long it took.
    """
    metrics = {}
    shown = tqdm(list(names), unit="metric", leave=False, disable=None if progress else True)
    with torch.inference_mode():
        for name in shown:
            shown.set_description(name)
            started_s = time.monotonic()
            measured_by = (functions or {}).get(name) or metric_function(name)
            metrics[name] = measured_by(subject)
            if progress:
                tqdm.write(f"{name}: {time.monotonic() - started_s:.1f} s")
    return {name: metric for name, metric in metrics.items() if metric is not None}


def applicable(model: LatentModel) -> tuple[str, ...]:
    """The model's metrics, and all others that a model of its kind can have."""
    names = list(model.metrics)
    if model.prior != "none":
        names += SAMPLE_METRICS
    if model.has_encoder:
        names += OF_ENCODERS
    return tuple(dict.fromkeys([*names, *latency.METRICS]))
