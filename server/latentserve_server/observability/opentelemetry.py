"""Tracing with OpenTelemetry spans, exported by OTLP over gRPC; needs the extra `tracing`.

Each call has a span, with the spans `queue` and `engine` below it for each reply; their times are
those measured by the batcher. Spans are created when the call ends, not on the engine's thread.
The SDK exports them from a separate thread and drops spans that its bounded queue cannot hold.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from google.rpc import code_pb2
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from latentserve_server import __version__
from latentserve_server.errors import SettingsError
from latentserve_server.observability.tracing import CallTrace, Metadata
from latentserve_server.services.call import Work
from latentserve_server.status import WireStatus

log = logging.getLogger(__name__)

_PROPAGATED = ("traceparent", "tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()

# Maximum number of chunks of a stream whose spans are created later.
_MAX_PENDING_CHUNKS = 32

# Status codes that count as server errors in OpenTelemetry's conventions for RPC servers.
_SERVER_FAILED = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


class OpenTelemetry:
    """Implements `tracing.Tracing`.

    Args:
        provider: creates the spans; `close` shuts it down.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("latentserve_server", __version__)

    @classmethod
    def exporting(cls, endpoint: str) -> OpenTelemetry:
        """Return tracing with an export to an endpoint, configured by the OTEL_ variables.

        Raises SettingsError if one of them has an invalid value.
        """
        logging.getLogger("opentelemetry.util.re").addFilter(redact_header)
        try:
            provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            exporter = OTLPSpanExporter(
                endpoint=endpoint, channel_options=_channel_options(endpoint)
            )
            provider.add_span_processor(BatchSpanProcessor(exporter))
        except Exception as error:  # the type depends on the variable
            raise SettingsError(
                f"tracing cannot start; check the OTEL_ variables: {error}"
            ) from error
        log.info("traces are sent to %s", endpoint)
        return cls(provider)

    def method(self, name: str) -> MethodSpans:
        """Return the tracer of a method, /SERVICE/METHOD."""
        return MethodSpans(self._tracer, name)

    def close(self, *, timeout_s: float) -> None:
        """Send the remaining spans and shut down, within the timeout even without a collector."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(timeout_s)
        if closing.is_alive():
            log.warning("not all traces could be sent within %g s", timeout_s)


class MethodSpans:
    """Implements `tracing.MethodTracer`."""

    def __init__(self, tracer: Tracer, method: str) -> None:
        _, service, name = method.split("/")
        self._tracer = tracer
        self._name = method[1:]
        self._attributes: dict[str, AttributeValue] = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": name,
        }

    def begin(self, metadata: Metadata | None) -> CallTrace | None:
        """Begin the span of a call, with the span of its `traceparent` as parent if it has one."""
        try:
            carrier = {
                key: value
                for key, value in metadata or ()
                if key in _PROPAGATED and isinstance(value, str)
            }
            # An empty context, because that of the current thread belongs to no call.
            parent = _PROPAGATOR.extract(carrier, Context()) if carrier else Context()
            now_ns = time.time_ns()
            span = self._tracer.start_span(
                self._name, parent, SpanKind.SERVER, self._attributes, start_time=now_ns
            )
            # A call that is not sampled has a trace only if the client sent its own.
            known = (
                span.is_recording() or trace.get_current_span(parent).get_span_context().is_valid
            )
            trace_id = trace.format_trace_id(span.get_span_context().trace_id) if known else ""
            return _CallSpans(self._tracer, span, now_ns - time.monotonic_ns(), trace_id)
        except Exception:
            log.exception("a call of %s cannot be traced", self._name)
            return None


class _ReplyTimes(NamedTuple):
    """Queue and engine times of one reply, in ns on the monotonic clock."""

    attributes: dict[str, AttributeValue]
    submitted_ns: int
    queue_ns: int
    compute_ns: int
    finished_ns: int
    error: str


class _CallSpans:
    """Implements `tracing.CallTrace`.

    `wall_ns` is the offset of the wall clock from the monotonic clock. It is read once per call,
    so that a change of the wall clock does not distort the spans of a call.
    """

    __slots__ = ("_recording", "_replies", "_span", "_tracer", "_wall_ns", "trace_id")

    def __init__(self, tracer: Tracer, span: Span, wall_ns: int, trace_id: str) -> None:
        self._tracer = tracer
        self._span = span
        self._wall_ns = wall_ns
        self._recording = span.is_recording()
        self.trace_id = trace_id
        self._replies: deque[_ReplyTimes] = deque()

    def record_work(self, work: Work | None) -> None:
        """Store the times of a reply."""
        if work is None or not self._recording:
            return
        try:
            model, operation, rows, completion = work
            attributes: dict[str, AttributeValue] = {
                "latentserve.model.name": model.manifest.name,
                "latentserve.model.version": model.manifest.version,
                "latentserve.operation": operation,
                "latentserve.rows": rows,
                "latentserve.batch_rows": completion.batch_rows,
                "latentserve.provider": model.provider,
            }
            error = completion.error.code if completion.error is not None else ""
            self._replies.append(
                _ReplyTimes(
                    attributes,
                    completion.submitted_ns,
                    completion.queue_ns,
                    completion.compute_ns,
                    time.monotonic_ns(),
                    error,
                )
            )
            if len(self._replies) >= _MAX_PENDING_CHUNKS:
                self._emit_spans()
        except Exception:
            log.exception("a reply cannot be traced")

    def end(self, code_name: str, failure: WireStatus | None) -> None:
        """End the span of the call and create the spans below it."""
        if not self._recording:
            return
        try:
            self._emit_spans()
            span = self._span
            span.set_attribute("rpc.grpc.status_code", code_pb2.Code.Value(code_name))
            if failure is not None:
                span.set_attribute("latentserve.request_id", failure.request_id)
            if code_name in _SERVER_FAILED:
                span.set_status(Status(StatusCode.ERROR, failure.message if failure else code_name))
            span.end(time.monotonic_ns() + self._wall_ns)
        except Exception:
            log.exception("the end of a call cannot be traced")

    def _emit_spans(self) -> None:
        """Create the spans of the stored replies."""
        while self._replies:
            times = self._replies.popleft()
            self._span.set_attributes(
                {key: times.attributes[key] for key in _CALL_ATTRIBUTES if key in times.attributes}
            )
            in_queue = not times.queue_ns and bool(times.error)  # the request never left the queue
            started_ns = times.finished_ns if in_queue else times.submitted_ns + times.queue_ns
            error = times.error if in_queue else ""
            self._add_span("queue", times, times.submitted_ns, started_ns, error)
            if not in_queue:
                ended_ns = times.finished_ns if times.error else started_ns + times.compute_ns
                self._add_span("engine", times, started_ns, ended_ns, times.error)

    def _add_span(
        self, name: str, times: _ReplyTimes, start_ns: int, end_ns: int, error: str
    ) -> None:
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span, Context()),
            SpanKind.INTERNAL,
            times.attributes,
            start_time=start_ns + self._wall_ns,
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_ns + self._wall_ns)


_CALL_ATTRIBUTES = (
    "latentserve.model.name",
    "latentserve.model.version",
    "latentserve.operation",
    "latentserve.provider",
)


def _channel_options(endpoint: str) -> Any:
    """Return channel arguments; `http_proxy` is not used for a collector on this machine."""
    host = (urlsplit(endpoint).hostname or "").removesuffix(".")
    local = host == "localhost" or host.endswith(".localhost")
    with contextlib.suppress(ValueError):  # a name
        address = ipaddress.ip_address(host)
        local = address.is_loopback or address.is_unspecified
    return (("grpc.enable_http_proxy", 0),) if local else ()


def redact_header(record: logging.LogRecord) -> bool:
    """Log filter: the SDK quotes an invalid header in its message, and it may contain a token."""
    record.msg = "OTEL_EXPORTER_OTLP_HEADERS has an invalid header; expected name=value,name=value"
    record.args = ()
    return True


def _resource() -> Resource:
    """Return the attributes of this process; OTEL_SERVICE_NAME and similar variables override."""
    ours: dict[str, AttributeValue] = {
        "service.name": "latentserve",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
