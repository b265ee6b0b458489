"""Tests of the spans that a running server sends to a collector on loopback."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from served import BEFORE_ANY_TRANSPORT, launched, served

TIMEOUT_S = 20.0
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
UNSAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),)
SERVICE = "latentserve.v1.GenerativeService/"


class Collector:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self._received: queue.Queue[ResourceSpans] = queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": handler}
                ),
            )
        )
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:
        for spans in request.resource_spans:
            self._received.put(spans)
        return ExportTraceServiceResponse()

    def take(self, calls: int) -> list[tuple[dict[str, str], Span]]:
        """Wait for the spans of this number of calls; return all spans with their resources."""
        found: list[tuple[dict[str, str], Span]] = []
        while sum(span.kind == Span.SPAN_KIND_SERVER for _, span in found) < calls:
            received = self._received.get(timeout=TIMEOUT_S)
            resource = {pair.key: pair.value.string_value for pair in received.resource.attributes}
            found += [(resource, span) for scope in received.scope_spans for span in scope.spans]
        return found

    def stop(self) -> None:
        self._server.stop(0).wait(TIMEOUT_S)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # ms
    running = Collector()
    yield running
    running.stop()


@pytest.fixture
def silent_url() -> Iterator[str]:
    """URL of a port that accepts connections and never replies."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


def attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


def test_calls_and_streams_are_traced_under_the_clients_span(
    exports: Path, tmp_path: Path, collector: Collector
) -> None:
    flags = ("--otlp-endpoint", collector.url, "--log-format", "json")
    with served(exports, tmp_path / "log", *flags) as server:
        with server.generative() as stub:
            before_ns = time.time_ns()
            stub.Sample(pb.SampleRequest(count=3), timeout=TIMEOUT_S, metadata=SAMPLED)
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S, metadata=UNSAMPLED)
            request = pb.SampleStreamRequest(count=9, chunk_rows=4)
            list(stub.SampleStream(request, timeout=TIMEOUT_S, metadata=SAMPLED))
            with pytest.raises(grpc.RpcError) as caught:
                stub.Sample(pb.SampleRequest(count=0), timeout=TIMEOUT_S, metadata=SAMPLED)
        found = collector.take(3)
        assert server.stop() == 0
    spans = [span for _, span in found]
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert all(resource["service.name"] == "latentserve" for resource, _ in found)
    calls = {span.name: span for span in spans if attributes(span).get("rpc.grpc.status_code") == 0}
    assert set(calls) == {SERVICE + "Sample", SERVICE + "SampleStream"}
    for call, chunks in (
        (calls[SERVICE + "Sample"], [3]),
        (calls[SERVICE + "SampleStream"], [4, 4, 1]),
    ):
        assert call.parent_span_id.hex() == PARENT_ID
        below = [span for span in spans if span.parent_span_id == call.span_id]
        for name in ("queue", "engine"):
            rows = [attributes(span)["latentserve.rows"] for span in below if span.name == name]
            assert rows == chunks
        assert len(below) == 2 * len(chunks)
        for span in (call, *below):
            assert before_ns <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert call.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= call.end_time_unix_nano
        assert attributes(call)["latentserve.model.name"] == "tiny-vae"
    (failed,) = [span for span in spans if attributes(span).get("rpc.grpc.status_code") == 3]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (line,) = [entry for entry in map(json.loads, server.log.splitlines()) if "trace_id" in entry]
    assert line["trace_id"] == TRACE_ID
    assert line["request_id"] == attributes(failed)["latentserve.request_id"]


def test_the_last_spans_are_sent_at_the_stop(
    exports: Path, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with served(exports, tmp_path / "log", "--otlp-endpoint", collector.url) as server:
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert server.stop() == 0
    assert {span.name for _, span in collector.take(1)} == {SERVICE + "Sample", "queue", "engine"}


def test_a_silent_collector_delays_neither_calls_nor_the_stop(
    exports: Path, tmp_path: Path, silent_url: str
) -> None:
    with served(exports, tmp_path / "log", "--otlp-endpoint", silent_url) as server:
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S, metadata=SAMPLED)
        assert server.stop() == 0
    assert "stopped: every call was completed" in server.log
    assert "Traceback" not in server.log


def test_every_worker_traces_its_own_calls(
    exports: Path, tmp_path: Path, collector: Collector
) -> None:
    flags = ("--otlp-endpoint", collector.url, "--workers", "2")
    with served(exports, tmp_path / "log", *flags) as server:
        instances: set[str] = set()
        calls = 0
        while len(instances) < 2:
            assert calls < 100, "every connection went to one worker"
            for _ in range(4):
                with server.generative() as stub:
                    stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            calls += 4
            instances |= {resource["service.instance.id"] for resource, _ in collector.take(4)}
        assert len(instances) == 2
        assert server.stop() == 0


@BEFORE_ANY_TRANSPORT
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_missing_extra_ends_the_process(
    exports: Path, tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module', name='opentelemetry')", "utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent), prepend=":")
    flags = ("--otlp-endpoint", "http://127.0.0.1:1", "--workers", workers)
    with launched(exports, tmp_path / "log", *flags) as server:
        assert server.process.wait(TIMEOUT_S) == 2
    assert "pip install 'latentserve-server[tracing]'" in server.log
    assert "Traceback" not in server.log


def test_the_clients_trace_id_is_logged_without_tracing(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", "--log-format", "json") as server:
        with server.generative() as stub, pytest.raises(grpc.RpcError):
            stub.Sample(pb.SampleRequest(count=0), timeout=TIMEOUT_S, metadata=SAMPLED)
        server.wait_for_log(TRACE_ID)
        assert server.stop() == 0
    (line,) = [entry for entry in map(json.loads, server.log.splitlines()) if "trace_id" in entry]
    assert line["trace_id"] == TRACE_ID


@BEFORE_ANY_TRANSPORT
def test_spans_to_this_machine_use_no_proxy(
    exports: Path,
    tmp_path: Path,
    collector: Collector,
    silent_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as patch:  # for the server, and not for the client of this test
            for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy"):
                patch.delenv(name, raising=False)
            for name in ("http_proxy", "https_proxy"):
                patch.setenv(name, silent_url)
            flags = ("--otlp-endpoint", collector.url)
            server = stack.enter_context(served(exports, tmp_path / "log", *flags))
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert len(collector.take(1)) == 3
        assert server.stop() == 0
