"""Spans by OpenTelemetry, sent by OTLP over gRPC. Needs the extra `tracing`.

A span for each call, and below it for each reply `queue` and `engine`, with the times that the
batcher took. They are made when the call ends, off the engine's thread. The SDK sends them
from a thread of its own, and drops what its bounded queue cannot hold.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from typing import NamedTuple

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

# Of a long stream, so many chunks wait to become spans, at most.
_CHUNKS_AT_ONCE = 32

# Where the server is to blame: OpenTelemetry's conventions for RPC servers.
_SERVER_FAILED = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


class OpenTelemetry:
    """Implements `traces.Tracing`.

    Args:
        provider: makes the spans; it is shut down with this.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("latentserve_server", __version__)

    @classmethod
    def exporting(cls, endpoint: str) -> OpenTelemetry:
        """Return one that sends to an endpoint; all else is by the standard OTEL_ variables.

        Raises SettingsError where one of them has a value that cannot be used.
        """
        logging.getLogger("opentelemetry.util.re").addFilter(hide_header)
        try:
            provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
            exporter = OTLPSpanExporter(endpoint=endpoint)
            provider.add_span_processor(BatchSpanProcessor(exporter))
        except Exception as error:  # whichever of its many variables it is
            raise SettingsError(
                f"tracing cannot start, see the OTEL_ variables: {error}"
            ) from error
        log.info("traces are sent to %s", endpoint)
        return cls(provider)

    def method(self, name: str) -> MethodSpans:
        """Return what traces the calls of /SERVICE/METHOD."""
        return MethodSpans(self._tracer, name)

    def close(self, *, timeout_s: float) -> None:
        """Send what is left, within the time, and end; a collector that is down holds up nobody."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(timeout_s)
        if closing.is_alive():
            log.warning("not all traces could be sent within %g s", timeout_s)


class MethodSpans:
    """Implements `traces.MethodTracer`."""

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
        """Begin the span of a call, under the caller's span if it names one."""
        try:
            carrier = {
                key: value
                for key, value in metadata or ()
                if key in _PROPAGATED and isinstance(value, str)
            }
            # Never the context of this thread: it belongs to nobody.
            parent = _PROPAGATOR.extract(carrier, Context()) if carrier else Context()
            now_ns = time.time_ns()
            span = self._tracer.start_span(
                self._name, parent, SpanKind.SERVER, self._attributes, start_time=now_ns
            )
            # Without a sample, only a caller who sent its own trace can look it up.
            known = (
                span.is_recording() or trace.get_current_span(parent).get_span_context().is_valid
            )
            trace_id = trace.format_trace_id(span.get_span_context().trace_id) if known else ""
            return _CallSpans(self._tracer, span, now_ns - time.monotonic_ns(), trace_id)
        except Exception:
            log.exception("a call of %s cannot be traced", self._name)
            return None


class _Ran(NamedTuple):
    """One reply's way through queue and engine; times in ns on the monotonic clock."""

    attributes: dict[str, AttributeValue]
    submitted_ns: int
    queue_ns: int
    compute_ns: int
    finished_ns: int
    error: str


class _CallSpans:
    """Implements `traces.CallTrace`.

    `wall_ns` is what the wall clock is ahead of the monotonic one: taken once for a call, so
    that a clock that is set meanwhile tears no call apart.
    """

    __slots__ = ("_ran", "_recording", "_span", "_tracer", "_wall_ns", "trace_id")

    def __init__(self, tracer: Tracer, span: Span, wall_ns: int, trace_id: str) -> None:
        self._tracer = tracer
        self._span = span
        self._wall_ns = wall_ns
        self._recording = span.is_recording()
        self.trace_id = trace_id
        self._ran: deque[_Ran] = deque()

    def record_work(self, work: Work | None) -> None:
        """Keep the times of a reply."""
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
            self._ran.append(
                _Ran(
                    attributes,
                    completion.submitted_ns,
                    completion.queue_ns,
                    completion.compute_ns,
                    time.monotonic_ns(),
                    error,
                )
            )
            if len(self._ran) >= _CHUNKS_AT_ONCE:
                self._tell()
        except Exception:
            log.exception("a reply cannot be traced")

    def end(self, code_name: str, failure: WireStatus | None) -> None:
        """End the span of the call, and those below it."""
        if not self._recording:
            return
        try:
            self._tell()
            span = self._span
            span.set_attribute("rpc.grpc.status_code", code_pb2.Code.Value(code_name))
            if failure is not None:
                span.set_attribute("latentserve.request_id", failure.request_id)
            if code_name in _SERVER_FAILED:
                span.set_status(Status(StatusCode.ERROR, failure.message if failure else code_name))
            span.end(time.monotonic_ns() + self._wall_ns)
        except Exception:
            log.exception("the end of a call cannot be traced")

    def _tell(self) -> None:
        """Make spans of what was kept."""
        while self._ran:
            ran = self._ran.popleft()
            self._span.set_attributes(
                {key: ran.attributes[key] for key in _OF_THE_CALL if key in ran.attributes}
            )
            in_queue = not ran.queue_ns and bool(ran.error)  # it never left it
            started_ns = ran.finished_ns if in_queue else ran.submitted_ns + ran.queue_ns
            self._child("queue", ran, ran.submitted_ns, started_ns, ran.error if in_queue else "")
            if not in_queue:
                ended_ns = ran.finished_ns if ran.error else started_ns + ran.compute_ns
                self._child("engine", ran, started_ns, ended_ns, ran.error)

    def _child(self, name: str, ran: _Ran, start_ns: int, end_ns: int, error: str) -> None:
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span, Context()),
            SpanKind.INTERNAL,
            ran.attributes,
            start_time=start_ns + self._wall_ns,
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_ns + self._wall_ns)


_OF_THE_CALL = (
    "latentserve.model.name",
    "latentserve.model.version",
    "latentserve.operation",
    "latentserve.provider",
)


def hide_header(record: logging.LogRecord) -> bool:
    """Filter of a logger: the SDK quotes a header that it cannot read, which may hold a token."""
    record.msg = "a header in OTEL_EXPORTER_OTLP_HEADERS is none; expected name=value,name=value"
    record.args = ()
    return True


def _resource() -> Resource:
    """Return what says which process this is; OTEL_SERVICE_NAME and its like have the last word."""
    ours: dict[str, AttributeValue] = {
        "service.name": "latentserve",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
