"""Metrics of a server process, parsed from the Prometheus text format."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families

from latentserve_server.observability.metrics import Metrics, cancellation_code
from latentserve_server.repository.lifecycle import Action, Outcome

SAMPLE = "/latentserve.v1.GenerativeService/Sample"
STREAM = "/latentserve.v1.GenerativeService/SampleStream"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: ())


def samples(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the value of the series with these labels, or None."""
    found = [
        number for has, number in samples(metrics).get(name, []) if labels.items() <= has.items()
    ]
    assert len(found) <= 1, f"{name} has {len(found)} series"
    return found[0] if found else None


def test_the_metrics_of_a_method_start_at_zero(metrics: Metrics) -> None:
    metrics.rpc(SAMPLE, streaming=False)
    for name in ("started", "msg_received", "msg_sent"):
        assert value(metrics, f"grpc_server_{name}_total", grpc_method="Sample") == 0
    assert value(metrics, "grpc_server_handled_total", grpc_code="OK") == 0
    assert value(metrics, "grpc_server_handling_seconds_count") == 0


def test_repeated_requests_for_a_method_return_the_same_metrics(metrics: Metrics) -> None:
    for _ in range(2):
        rpc = metrics.rpc(SAMPLE, streaming=False)
        rpc.begin()
    assert value(metrics, "grpc_server_started_total", grpc_method="Sample") == 2


def test_calls_are_counted_by_code_and_their_durations_together(metrics: Metrics) -> None:
    rpc = metrics.rpc(SAMPLE, streaming=False)
    for code, seconds in (("OK", 0.0005), ("OK", 0.2), ("INTERNAL", 0.0001), ("OK", 100.0)):
        rpc.begin()
        rpc.end(code, seconds)
    rpc.begin()  # still running
    assert value(metrics, "grpc_server_started_total") == 5
    assert value(metrics, "grpc_server_handled_total", grpc_code="OK") == 3
    assert value(metrics, "grpc_server_handled_total", grpc_code="INTERNAL") == 1
    name = "grpc_server_handling_seconds"
    assert value(metrics, f"{name}_count", grpc_type="unary") == 4
    assert value(metrics, f"{name}_sum") == pytest.approx(100.2006)
    assert value(metrics, f"{name}_bucket", le="0.0001") == 1
    assert value(metrics, f"{name}_bucket", le="0.0005") == 2
    assert value(metrics, f"{name}_bucket", le="10.0") == 3
    assert value(metrics, f"{name}_bucket", le="+Inf") == 4


def test_messages_of_unary_calls_and_of_streams_are_counted(metrics: Metrics) -> None:
    unary, stream = metrics.rpc(SAMPLE, streaming=False), metrics.rpc(STREAM, streaming=True)
    for code in ("OK", "OK", "NOT_FOUND"):
        unary.begin()
        unary.end(code, 0.1)
    stream.begin()
    for _ in range(7):
        stream.sent()
    stream.end("CANCELLED", 1.0)
    for method, received, sent in (("Sample", 3, 2), ("SampleStream", 1, 7)):
        assert value(metrics, "grpc_server_msg_received_total", grpc_method=method) == received
        assert value(metrics, "grpc_server_msg_sent_total", grpc_method=method) == sent


def test_the_callbacks_of_a_batcher_are_counted(metrics: Metrics) -> None:
    callbacks = metrics.callbacks("vae", 3)
    callbacks.waited("sample", 0.001)
    callbacks.waited("sample", 0.002)
    callbacks.ran("sample", 48, 0.01)
    callbacks.padded("sample", 16)
    callbacks.padded("sample", 3)
    callbacks.failed("encode")
    callbacks.refused("encode", "queue_full")
    callbacks.dropped("sample", "expired")
    labels = {"model": "vae", "version": "3"}
    sample, encode = {**labels, "operation": "sample"}, {**labels, "operation": "encode"}
    assert value(metrics, "latentserve_queue_seconds_count", **sample) == 2
    assert value(metrics, "latentserve_queue_seconds_sum", **sample) == pytest.approx(0.003)
    assert value(metrics, "latentserve_engine_seconds_bucket", **sample, le="0.01") == 1
    assert value(metrics, "latentserve_batch_rows_bucket", **sample, le="32.0") == 0
    assert value(metrics, "latentserve_batch_rows_bucket", **sample, le="64.0") == 1
    assert value(metrics, "latentserve_padding_rows_total", **sample) == 19
    assert value(metrics, "latentserve_engine_failures_total", **encode) == 1
    assert value(metrics, "latentserve_rejected_total", **encode, reason="queue_full") == 1
    assert value(metrics, "latentserve_dropped_total", **sample, reason="expired") == 1


def models_with_series(metrics: Metrics) -> set[str]:
    return {
        has["model"] for found in samples(metrics).values() for has, _ in found if "model" in has
    }


def test_a_removed_version_has_no_series_even_if_calls_still_run_on_it(metrics: Metrics) -> None:
    callbacks = metrics.callbacks("vae", 3)
    callbacks.waited("sample", 0.001)
    assert models_with_series(metrics) == {"vae"}
    metrics.reloaded(Outcome("vae", 3, Action.REMOVED))
    assert models_with_series(metrics) == set()
    callbacks.ran("sample", 1, 0.1)
    callbacks.waited("encode", 0.1)
    callbacks.failed("sample")
    callbacks.refused("sample", "unloading")
    callbacks.dropped("sample", "cancelled")
    assert models_with_series(metrics) == set()
    assert value(metrics, "latentserve_reload_outcomes_total", action="removed") == 1


def test_a_reloaded_version_continues_the_counts(metrics: Metrics) -> None:
    old = metrics.callbacks("vae", 3)
    old.ran("sample", 8, 0.1)
    metrics.callbacks("vae", 3).ran("sample", 8, 0.1)
    old.ran("sample", 8, 0.1)  # a call that was still running
    metrics.reloaded(Outcome("vae", 3, Action.LOADED))
    assert value(metrics, "latentserve_batch_rows_count", model="vae") == 3


def test_the_openmetrics_format_parses(metrics: Metrics) -> None:
    metrics.rpc(SAMPLE, streaming=False).end("OK", 0.1)
    metrics.callbacks("vae", 3).ran("sample", 8, 0.1)
    text = exposition.generate_latest(metrics.registry).decode()
    families = {family.name: family.type for family in parse_open(text)}
    assert families["grpc_server_handled"] == "counter"
    assert families["latentserve_batch_rows"] == "histogram"
    assert families["latentserve_build_info"] == "gauge"


def test_a_scrape_can_be_restricted_by_name(metrics: Metrics) -> None:
    metrics.rpc(SAMPLE, streaming=False)
    some = metrics.registry.restricted_registry(["grpc_server_started_total"])
    assert [metric.name for metric in some.collect()] == ["grpc_server_started"]


def test_build_info_has_the_versions(metrics: Metrics) -> None:
    ((labels, number),) = samples(metrics)["latentserve_build_info"]
    assert number == 1
    assert set(labels) == {"version", "python", "grpcio", "onnxruntime"}
    assert all(text[0].isdigit() for text in labels.values())


@pytest.mark.parametrize(
    ("remaining_s", "code"),
    [
        (None, "CANCELLED"),
        (1.0, "CANCELLED"),
        (0.01, "DEADLINE_EXCEEDED"),
        (-1.0, "DEADLINE_EXCEEDED"),
    ],
)
def test_the_code_of_a_cancelled_call_depends_on_its_remaining_time(
    remaining_s: float | None, code: str
) -> None:
    assert cancellation_code(remaining_s) == code
