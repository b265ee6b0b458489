import dataclasses

import pytest

from latentserve_training.errors import EvaluationError
from latentserve_training.evaluate import latency
from latentserve_training.evaluate.latency import decoder_session
from latentserve_training.evaluate.metric import Subject
from latentserve_training.evaluate.suite import measure
from latentserve_training.train.loop import build_model


class Slow:
    """Replacement for a session in which every third call takes long."""

    def __init__(self, clock):
        self.clock, self.calls, self.batches = clock, 0, []

    def get_inputs(self):
        return [type("Input", (), {"name": "latents"})]

    def run(self, outputs, inputs):
        self.calls += 1
        self.batches.append(inputs["latents"].shape)
        self.clock.now_ns += 1_000_000 if self.calls % 3 == 0 else 25_000


class Clock:
    now_ns = 0

    def perf_counter_ns(self):
        return self.now_ns


def test_latency_is_the_median_of_single_calls_after_a_warm_up(
    make_config, image_data, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "CALLS", 30)
    monkeypatch.setattr(latency, "FIRST_CALLS", 5)
    model, session = build_model(make_config(), image_data.image_shape), Slow(clock)
    metric = measure(Subject(model, image_data, decoder=session), ["decode_latency_us"])[
        "decode_latency_us"
    ]
    assert metric.value == 25.0
    assert session.calls == 35
    assert set(session.batches) == {(1, 3)}
    assert (metric.samples, metric.baseline_value) == (30, None)
    assert "depends on the machine" in metric.estimator


def test_a_runs_own_decoder_is_exported_for_it(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape).eval()
    metric = measure(Subject(model, image_data), ["decode_latency_us"])["decode_latency_us"]
    assert 0 < metric.value < 1e5


def test_a_model_without_a_decoder_has_no_latency(make_config, image_data, monkeypatch):
    model = build_model(make_config(), image_data.image_shape).eval()
    encoding = tuple(graph for graph in model.graphs() if graph.operations == ("encode",))
    monkeypatch.setattr(model, "graphs", lambda: encoding)
    with pytest.raises(EvaluationError, match="autoencoder has no graph that decodes"):
        decoder_session(model)
    assert dataclasses.replace(Subject(model, image_data)).decoder is None
