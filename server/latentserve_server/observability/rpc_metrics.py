"""Metrics of the calls of each gRPC method.

Names and labels are those of the Go and Java gRPC Prometheus interceptors, so that common
dashboards work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from latentserve_server.observability.deferred_counters import Counter, Histogram
from latentserve_server.observability.model_metrics import SECONDS, add_histogram

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_DEADLINE_MARGIN_S = 0.02


class RpcMetrics:
    """Metrics of one method; `Metrics.rpc` creates one instance per method.

    Each `begin` must be followed by one `end`. `begin`, `sent` and `end` are safe from any thread.
    """

    def __init__(self, method: str, *, streaming: bool) -> None:
        _, service, name = method.split("/")
        self.labels = ("server_stream" if streaming else "unary", service, name)
        self.streaming = streaming
        self.begun = Counter()
        self.messages_sent = Counter()
        # By status code. The counts of the histograms are also the numbers of handled calls.
        self.seconds = {"OK": Histogram(SECONDS)}
        self.begin = self.begun.add
        """Count the start of a call."""
        self.sent = self.messages_sent.add
        """Count a message of a stream; a successful unary call counts as one message."""

    def end(self, code_name: str, seconds: float) -> None:
        """Count the end of a call with a status code, such as OK."""
        found = self.seconds.get(code_name)
        if found is None:
            found = self.seconds.setdefault(code_name, Histogram(SECONDS))
        found.observe(seconds)


def collect_rpcs(rpcs: Iterable[RpcMetrics]) -> Iterator[Metric]:
    """Yield the metric families of the methods."""
    started = CounterMetricFamily("grpc_server_started", "Calls started.", labels=_METHOD)
    handled = CounterMetricFamily(
        "grpc_server_handled",
        "Calls completed, by status code.",
        labels=(*_METHOD, "grpc_code"),
    )
    handling = HistogramMetricFamily(
        "grpc_server_handling_seconds",
        "Time from the request to the end of the reply.",
        labels=_METHOD,
    )
    received = CounterMetricFamily(
        "grpc_server_msg_received", "Request messages, one per call.", labels=_METHOD
    )
    sent = CounterMetricFamily(
        "grpc_server_msg_sent",
        "Reply messages: one per successful unary call, and every chunk of a stream.",
        labels=_METHOD,
    )
    for rpc in rpcs:
        # Read the completed calls before the started ones, so that they are never more.
        by_code = dict(rpc.seconds)
        ended = {code: sum(seconds.read()[0]) for code, seconds in by_code.items()}
        add_histogram(handling, rpc.labels, SECONDS, *by_code.values())
        for code, count in ended.items():
            handled.add_metric((*rpc.labels, code), count)
        begun = rpc.begun.read()
        started.add_metric(rpc.labels, begun)
        received.add_metric(rpc.labels, begun)
        sent.add_metric(rpc.labels, rpc.messages_sent.read() if rpc.streaming else ended["OK"])
    yield from (started, handled, handling, received, sent)


def cancellation_code(remaining_s: float | None) -> str:
    """Return the status code of a call that the transport cancelled.

    `remaining_s` is the time to the deadline, None without one. A client whose deadline passes
    resets the call, and the reset may arrive shortly before the deadline by the server's clock.
    """
    if remaining_s is not None and remaining_s <= _DEADLINE_MARGIN_S:
        return "DEADLINE_EXCEEDED"
    return "CANCELLED"
