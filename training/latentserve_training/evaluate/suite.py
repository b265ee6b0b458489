"""Suite of all metrics, and the evaluation of a model with its metrics.

``LatentModel.metrics`` lists the metrics of a model, and ``METRICS`` maps their names to functions.
They are computed after every training, in at most a minute. The command ``evaluate`` also computes
the other metrics that a model can have (:func:`applicable`). Baselines are fitted to all training
images, including the validation images, so they use no fewer images than the model.
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
    """The function of a metric in METRICS, or of one of them at a noise level."""
    return METRICS.get(name) or reconstruction.metric_at_level(name)


def evaluate(
    model: LatentModel, data: ImageData, reference: LatentModel | None = None
) -> dict[str, Metric]:
    """Compute the metrics of a model; this moves it to the CPU, in evaluation mode."""
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
    """Compute the named metrics; omit those that the subject does not have.

    Args:
        subject: A model in evaluation mode, on the CPU.
        names: Names for :func:`metric_function`.
        functions: Functions that replace those of some metrics.
        progress: Print the name of each metric and the time it took.
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
    """The metrics of the model, and all other metrics that its kind can have."""
    names = list(model.metrics)
    if model.prior != "none":
        names += SAMPLE_METRICS
    if model.has_encoder:
        names += OF_ENCODERS
    return tuple(dict.fromkeys([*names, *latency.METRICS]))
