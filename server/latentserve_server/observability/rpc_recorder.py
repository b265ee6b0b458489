"""Recorder of the calls of one method: metrics, traces and access log."""

from __future__ import annotations

from latentserve_server.observability.logs.failed_calls import is_logged, log_call
from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.tracing import CallTrace, Metadata, Tracing, trace_id_of
from latentserve_server.status import WireStatus


class RpcRecorder:
    """Records every call of one method; safe from any thread.

    Args:
        metrics: metrics of the server.
        method: full method name, /SERVICE/METHOD.
        streaming: whether the method is server-streaming.
        logged: whether its calls are logged.
        tracing: creates traces; None disables them.

    `tracer` begins the trace of a call; it is None without tracing.
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
        """Record the start of a call."""
        self.sent = self._metrics.sent
        """Record a sent message of a stream."""

    def end(
        self,
        code_name: str,
        seconds: float,
        head: bytes,
        failure: WireStatus | None = None,
        trace: CallTrace | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Record the end of a call.

        `head` is the beginning of its request and `failure` its status, see
        `failed_calls.log_call`; `trace` is the trace that `tracer` began for its metadata.
        """
        self._metrics.end(code_name, seconds)
        if trace is not None:
            trace.end(code_name, failure)
        if self._logged and is_logged(code_name):
            trace_id = trace_id_of(trace, metadata)
            log_call(self._method, code_name, seconds, head, failure, trace_id)
