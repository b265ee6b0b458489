"""Tracing interface for transports and the access log, independent of OpenTelemetry.

`opentelemetry` creates the spans. It is imported only with `--otlp-endpoint`, because it needs an
optional dependency. Without tracing, a call costs only comparisons with None.

    begin         a call arrives: its span begins, with the client's `traceparent` as parent
    record_work   a reply is ready: one span for its queue time and one for the engine
    end           the call ends with a status
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from latentserve_server.services.call import Work
from latentserve_server.status import WireStatus

Metadata = Iterable[tuple[str, str | bytes]]

# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, span id, flags.
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-.*")


class CallTrace(Protocol):
    """Trace of one call. No method raises or blocks; all are safe from any thread."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" if the trace is recorded nowhere."""

    def record_work(self, work: Work | None) -> None:
        """Record the work of a reply or of one chunk of a stream; None if it used no engine."""

    def end(self, code_name: str, failure: WireStatus | None) -> None:
        """Record the end of the call."""


class MethodTracer(Protocol):
    """Begins the traces of one method."""

    def begin(self, metadata: Metadata | None) -> CallTrace | None:
        """Begin the trace of a call with this metadata; return None if it cannot be traced."""


class Tracing(Protocol):
    """Tracing of one server process."""

    def method(self, name: str) -> MethodTracer:
        """Return the tracer of a method, /SERVICE/METHOD."""

    def close(self, *, timeout_s: float) -> None:
        """Send the remaining spans within the timeout, and shut down."""


def trace_id_of(trace: CallTrace | None, metadata: Metadata | None) -> str:
    """Return the trace id of a call, "" for none.

    The id of a client's `traceparent` is logged whether or not this server records spans.
    """
    if trace is not None:
        return trace.trace_id
    for key, value in metadata or ():
        if key == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found.group(1) if found else ""
    return ""
