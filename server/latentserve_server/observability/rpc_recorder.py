"""What is kept of the calls of one method: metrics, a trace, and a line in the log."""

from __future__ import annotations

from latentserve_server.observability.access_log import is_logged, log_call
from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.tracing import CallTrace, Metadata, Tracing, trace_id_of
from latentserve_server.status import WireStatus


class RpcRecorder:
    """Told of every call of one method, from any thread.

    Args:
        metrics: count the calls.
        method: its full name.
        streaming: whether it has many replies.
        logged: whether its calls are for the log.
        tracing: traces its calls; None does not.

    `tracer` begins the trace of a call, None where there are none.
    """

    def __init__(
        self,
        metrics: Metrics,
        method: str,
        *,
        streaming: bool,
        logged: bool = True,
        tracing: Tracing | None = None,
    ) -> None:
        self.tracer = None if tracing is None else tracing.method(method)
        self._method = method
        self._logged = logged
        self._metrics = metrics.rpc(method, streaming=streaming)
        self.begin = self._metrics.begin
        """A call began."""
        self.sent = self._metrics.sent
        """A message of a stream was sent."""

    def end(
        self,
        code_name: str,
        seconds: float,
        head: bytes,
        failure: WireStatus | None = None,
        trace: CallTrace | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """A call ended.

        `head` is the beginning of its request and `failure` its status, see
        `request_log.log_call`; `trace` is what `tracer` gave for its metadata.
        """
        self._metrics.end(code_name, seconds)
        if trace is not None:
            trace.end(code_name, failure)
        if self._logged and is_logged(code_name):
            trace_id = trace_id_of(trace, metadata)
            log_call(self._method, code_name, seconds, head, failure, trace_id)
