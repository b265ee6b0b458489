"""Measures a trained model on the test images, each figure beside its baseline.

A model names the metrics that suit its kind (``LatentModel.metrics``); ``METRICS`` computes them.
Baselines are fitted on all training images, the validation images included: they see no less than
the model did.
"""

import torch

from latentserve_training import (
    code_metrics,
    generative_metrics,
    likelihood_metrics,
    reconstruction_metrics,
    twin_metrics,
)
from latentserve_training.classifier import Classifier
from latentserve_training.data import ImageData
from latentserve_training.measure import Metric, MetricFunction, Subject
from latentserve_training.models.base import LatentModel

METRICS: dict[str, MetricFunction] = (
    reconstruction_metrics.METRICS
    | likelihood_metrics.METRICS
    | code_metrics.METRICS
    | generative_metrics.METRICS
    | twin_metrics.METRICS
)


def evaluate(
    model: LatentModel,
    data: ImageData,
    reference: LatentModel | None = None,
    classifier: Classifier | None = None,
) -> dict[str, Metric]:
    """Compute the model's metrics; the models are left in evaluation mode, on the CPU."""
    for each in (model, reference):
        if each is not None:
            each.eval().cpu()
    subject = Subject(model, data, reference, classifier)
    with torch.inference_mode():
        metrics = {name: METRICS[name](subject) for name in model.metrics}
    return {name: metric for name, metric in metrics.items() if metric is not None}
