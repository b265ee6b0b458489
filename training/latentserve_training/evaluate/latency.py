"""Latency of the exported decoder, for comparisons of models on one machine."""

import statistics
import time

import onnxruntime
import torch

from latentserve_training.errors import EvaluationError
from latentserve_training.evaluate.metric import Metric, MetricFunction, Subject
from latentserve_training.graphs.conversion import convert, start_session
from latentserve_training.models.base import LatentModel
from latentserve_training.provenance import cpu_name

CALLS = 1000
FIRST_CALLS = 100  # warm-up, not counted: ONNX Runtime still allocates memory
SEED = 7


def decode_latency(subject: Subject) -> Metric:
    """Median time to decode one image in ONNX Runtime."""
    session = subject.decoder or decoder_session(subject.model)
    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(1, subject.model.latent_dim, generator=generator).numpy()
    inputs = {session.get_inputs()[0].name: latents}
    microseconds = []
    for call in range(FIRST_CALLS + CALLS):
        started_ns = time.perf_counter_ns()
        session.run(None, inputs)
        if call >= FIRST_CALLS:
            microseconds.append((time.perf_counter_ns() - started_ns) / 1e3)
    return Metric(
        value=statistics.median(microseconds),
        unit="µs",
        higher_is_better=False,
        baseline_name=None,
        baseline_value=None,
        samples=CALLS,
        estimator=(
            f"median of {CALLS} calls of the exported decoder with one image each, ONNX Runtime "
            f"{onnxruntime.__version__} on one CPU thread; it depends on the machine: {cpu_name()}"
        ),
    )


def decoder_session(model: LatentModel) -> onnxruntime.InferenceSession:
    """A session of the graph that serves Decode, or Sample if Decode is not supported.

    Raises:
        EvaluationError: If the model has neither.
    """
    for operation in ("decode", "sample"):
        for graph in model.graphs():
            if operation in graph.operations:
                # The exporter cannot trace tensors that are created in inference mode.
                with torch.inference_mode(False):
                    proto = convert(graph.evaluating(), model.image_shape, model.latent_dim)
                return start_session(proto)
    raise EvaluationError(f"a model of kind {model.kind} has no graph that decodes")


METRICS: dict[str, MetricFunction] = {"decode_latency_us": decode_latency}
