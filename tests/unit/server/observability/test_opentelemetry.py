"""Spans of a call, as an exporter receives them."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from latentserve_server.batching.request import Completion
from latentserve_server.errors import DeadlineExceeded, EngineFailure, QueueFull, SettingsError
from latentserve_server.observability.opentelemetry import OpenTelemetry
from latentserve_server.observability.tracing import CallTrace
from latentserve_server.services.call import Work
from latentserve_server.status import explain

SAMPLE = "/latentserve.v1.GenerativeService/Sample"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("tracestate", "a=b"))
UNSAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),)
MS = 1_000_000


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> OpenTelemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetry(provider)


def begin(tracing: OpenTelemetry, metadata: Any = ()) -> CallTrace:
    trace = tracing.method(SAMPLE).begin(metadata)
    assert trace is not None
    return trace


def work(**completion: Any) -> Work:
    """Work of 4 rows that was submitted 10 ms ago."""
    manifest = SimpleNamespace(name="vae", version=3)
    model: Any = SimpleNamespace(manifest=manifest, provider="CPUExecutionProvider")
    submitted_ns = time.monotonic_ns() - 10 * MS
    return model, "sample", 4, Completion(submitted_ns=submitted_ns, **completion)


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = exporter.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans)
    return found


CALL = SAMPLE[1:]


def test_a_call_has_a_span_with_queue_and_engine_below_it(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    before_ns = time.time_ns()
    trace = begin(tracing)
    trace.record_work(work(queue_ns=3 * MS, compute_ns=5 * MS, batch_rows=32))
    assert not exporter.get_finished_spans()  # made at the end, off the engine's thread
    trace.end("OK", None)
    spans = by_name(exporter)
    assert set(spans) == {CALL, "queue", "engine"}
    call, queue, engine = spans[CALL], spans["queue"], spans["engine"]
    assert call.kind is SpanKind.SERVER
    assert call.parent is None
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "latentserve.v1.GenerativeService",
        "rpc.method": "Sample",
        "rpc.grpc.status_code": 0,
        "latentserve.model.name": "vae",
        "latentserve.model.version": 3,
        "latentserve.operation": "sample",
        "latentserve.provider": "CPUExecutionProvider",
    }
    assert call.status.status_code is StatusCode.UNSET
    for span in (queue, engine):
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id
        assert (span.attributes or {})["latentserve.rows"] == 4
        assert (span.attributes or {})["latentserve.batch_rows"] == 32
    assert duration_ns(queue) == 3 * MS
    assert duration_ns(engine) == 5 * MS
    assert engine.start_time == queue.end_time
    # On the wall clock: the request was submitted 10 ms before its work was recorded.
    assert before_ns - 11 * MS < (queue.start_time or 0) < time.time_ns() - 9 * MS
    assert before_ns <= (call.start_time or 0) <= (call.end_time or 0) <= time.time_ns() + MS


def duration_ns(span: ReadableSpan) -> int:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.end_time - span.start_time


def test_the_span_of_the_client_is_the_parent(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing, SAMPLED)
    assert trace.trace_id == TRACE_ID
    trace.end("OK", None)
    call = by_name(exporter)[CALL]
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == PARENT_ID
    assert f"{call.context.trace_id:032x}" == TRACE_ID
    assert call.context.trace_state.to_header() == "a=b"


def test_an_unsampled_trace_of_a_client_has_no_spans_but_its_id_is_known(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing, UNSAMPLED)
    trace.record_work(work(queue_ns=1, compute_ns=1))
    trace.end("OK", None)
    assert not exporter.get_finished_spans()
    assert trace.trace_id == TRACE_ID


def test_a_call_that_is_not_sampled_has_no_trace_id(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert begin(OpenTelemetry(provider)).trace_id == ""
    assert begin(OpenTelemetry(provider), UNSAMPLED).trace_id == TRACE_ID
    assert begin(OpenTelemetry(provider), SAMPLED).trace_id == TRACE_ID


@pytest.mark.parametrize("value", ["rubbish", "", b"\x00"])
def test_an_invalid_traceparent_begins_a_new_trace(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter, value: str | bytes
) -> None:
    begin(tracing, (("traceparent", value),)).end("OK", None)
    assert by_name(exporter)[CALL].parent is None


def test_the_span_of_a_failed_call_has_the_request_id_of_the_log(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing)
    error = EngineFailure("a secret of the graph")
    failure = explain(error)
    trace.record_work(work(error=error, queue_ns=2 * MS))
    trace.end("INTERNAL", failure)
    spans = by_name(exporter)
    call = spans[CALL]
    assert (call.attributes or {})["latentserve.request_id"] == failure.request_id
    assert (call.attributes or {})["rpc.grpc.status_code"] == 13
    assert call.status.status_code is StatusCode.ERROR
    assert spans["engine"].status.status_code is StatusCode.ERROR
    assert spans["queue"].status.status_code is StatusCode.UNSET
    assert duration_ns(spans["engine"]) >= 8 * MS  # 10 ms ago, of which 2 in the queue
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_a_call_whose_deadline_passed_in_the_queue_has_no_engine_span(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing)
    trace.record_work(work(error=DeadlineExceeded("too late")))
    trace.end("DEADLINE_EXCEEDED", None)
    spans = by_name(exporter)
    assert set(spans) == {CALL, "queue"}
    assert duration_ns(spans["queue"]) >= 10 * MS
    assert spans["queue"].status.description == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("code", "failure", "server_error"),
    [
        ("CANCELLED", None, False),
        ("NOT_FOUND", None, False),
        ("RESOURCE_EXHAUSTED", explain(QueueFull("full")), False),
        ("UNAVAILABLE", None, True),
        ("DEADLINE_EXCEEDED", None, True),
    ],
)
def test_only_server_errors_set_the_error_status_of_a_span(
    tracing: OpenTelemetry,
    exporter: InMemorySpanExporter,
    code: str,
    failure: Any,
    server_error: bool,
) -> None:
    trace = begin(tracing)
    trace.end(code, failure)
    call = by_name(exporter)[CALL]
    assert (call.status.status_code is StatusCode.ERROR) == server_error
    assert ("latentserve.request_id" in (call.attributes or {})) == (failure is not None)


def test_each_chunk_of_a_stream_has_its_spans_and_few_are_pending(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing)
    for _ in range(100):
        trace.record_work(work(queue_ns=1, compute_ns=1))
    assert len(exporter.get_finished_spans()) >= 2 * 64
    trace.end("OK", None)
    names = [span.name for span in exporter.get_finished_spans()]
    assert (names.count("queue"), names.count("engine"), names.count(CALL)) == (100, 100, 1)


def test_a_reply_that_needed_no_engine_has_no_span_below_it(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    trace = begin(tracing)
    trace.record_work(None)
    trace.end("OK", None)
    assert set(by_name(exporter)) == {CALL}


class Broken(SpanExporter):
    """Fails at every export."""

    def export(self, spans: object) -> SpanExportResult:
        raise RuntimeError("broken")


def test_errors_in_tracing_do_not_fail_the_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Broken()))
    tracing = OpenTelemetry(provider)
    trace = begin(tracing)
    broken: Any = (None, "sample", 1, None)
    trace.record_work(broken)
    trace.end("NO_SUCH_CODE", None)
    no_metadata: Any = 5
    assert tracing.method(SAMPLE).begin(no_metadata) is None
    assert len(caplog.records) >= 3


def test_a_collector_that_is_down_does_not_delay_calls(caplog: pytest.LogCaptureFixture) -> None:
    tracing = OpenTelemetry.exporting("http://127.0.0.1:1")  # a closed port
    method = tracing.method(SAMPLE)
    for _ in range(3000):  # more than the queue of 2048 holds
        trace = method.begin(())
        assert trace is not None
        trace.end("OK", None)
    tracing.close(timeout_s=0.2)
    assert "not all traces could be sent within 0.2 s" in caplog.text


def test_an_invalid_variable_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "rar")
    with pytest.raises(SettingsError, match=r"OTEL_ variables.*rar"):
        OpenTelemetry.exporting("http://127.0.0.1:1")


def test_a_token_in_an_invalid_header_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer secret")
    OpenTelemetry.exporting("http://127.0.0.1:1").close(timeout_s=1.0)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
    assert "secret" not in caplog.text


def test_the_resource_names_the_process_and_variables_override_it(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    def resource() -> dict[str, Any]:
        tracing = OpenTelemetry.exporting("http://127.0.0.1:1")
        try:
            return dict(tracing._provider.resource.attributes)
        finally:
            tracing.close(timeout_s=1.0)

    found = resource()
    assert found["service.name"] == "latentserve"
    assert found["service.instance.id"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
    found = resource()
    assert found["service.name"] == "mine"
    assert found["deployment.environment.name"] == "lab"
    assert found["service.version"]
