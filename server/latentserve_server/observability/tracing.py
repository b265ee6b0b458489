"""Where traces begin: what a transport and the log need of them, without OpenTelemetry.

`otel` makes the spans, and is imported only where they are asked for: it comes with an extra. A
call without tracing pays for comparisons with None.

    begin    the transport has a call: its span begins, under the caller's `traceparent`
    worked   a reply is there: a span for the wait in the queue and one for the engine
    end      the call is over, with a status
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from latentserve_server.errors import SettingsError
from latentserve_server.services.call import Work
from latentserve_server.status import WireStatus

Metadata = Iterable[tuple[str, str | bytes]]

# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, span id, flags.
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-.*")


class CallTrace(Protocol):
    """The trace of one call. No method raises or blocks; all are safe from any thread."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" where nobody will ever find the trace."""

    def record_work(self, work: Work | None) -> None:
        """A reply, or one chunk of a stream, is there; None: it needed no engine."""

    def end(self, code_name: str, failure: WireStatus | None) -> None:
        """The call ended."""


class MethodTracer(Protocol):
    """Begins the traces of one method."""

    def begin(self, metadata: Metadata | None) -> CallTrace | None:
        """A call with this metadata began; None where it cannot be traced."""


class Tracing(Protocol):
    """The traces of one server process."""

    def method(self, name: str) -> MethodTracer:
        """Return what traces the calls of /SERVICE/METHOD."""

    def close(self, *, timeout_s: float) -> None:
        """Send what is left, within the time, and end."""


def open_tracing(endpoint: str) -> Tracing | None:
    """Return what sends traces to an OTLP endpoint, None for "".

    Raises SettingsError where the extra is not installed.
    """
    if not endpoint:
        return None
    try:
        from latentserve_server.observability.opentelemetry import OpenTelemetry
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(
            "--otlp-endpoint needs OpenTelemetry, which is not installed: "
            "pip install 'latentserve-server[tracing]'"
        ) from error
    return OpenTelemetry.exporting(endpoint)


def trace_id_of(trace: CallTrace | None, metadata: Metadata | None) -> str:
    """Return the id under which a call is known to others, "" for none.

    A caller's own trace is named in the log whether or not this server takes part in it.
    """
    if trace is not None:
        return trace.trace_id
    for key, value in metadata or ():
        if key == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value)
            return found.group(1) if found else ""
    return ""
