"""The calls of each method, counted.

Names and labels are those of the go-grpc and java-grpc Prometheus interceptors, so that common
dashboards fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from latentserve_server.observability.deferred_counters import Counter, Histogram
from latentserve_server.observability.model_metrics import SECONDS, add_histogram

_METHOD = ("grpc_type", "grpc_service", "grpc_method")
_DEADLINE_MARGIN_S = 0.02


class RpcMetrics:
    """The metrics of one method; made once for each, by `Metrics.rpc`.

    Every call that begins ends. `begin`, `sent` and `end` are safe from any thread.
    """

    def __init__(self, method: str, *, streaming: bool) -> None:
        _, service, name = method.split("/")
        self.labels = ("server_stream" if streaming else "unary", service, name)
        self.streaming = streaming
        self.begun = Counter()
        self.messages_sent = Counter()
        # By status code. Those who ended are also those who were handled: one list has both.
        self.seconds = {"OK": Histogram(SECONDS)}
        self.begin = self.begun.add
        """Count a call that began."""
        self.sent = self.messages_sent.add
        """Count a message of a stream; of unary calls, the good ones have sent one."""

    def end(self, code_name: str, seconds: float) -> None:
        """Count a call that ended with a status code, such as OK."""
        found = self.seconds.get(code_name)
        if found is None:
            found = self.seconds.setdefault(code_name, Histogram(SECONDS))
        found.observe(seconds)


def collect_rpcs(rpcs: Iterable[RpcMetrics]) -> Iterator[Metric]:
    """Give the metrics of methods."""
    started = CounterMetricFamily("grpc_server_started", "Calls that began.", labels=_METHOD)
    handled = CounterMetricFamily(
        "grpc_server_handled",
        "Calls that ended, by status code.",
        labels=(*_METHOD, "grpc_code"),
    )
    handling = HistogramMetricFamily(
        "grpc_server_handling_seconds",
        "Time from the request to the end of the reply.",
        labels=_METHOD,
    )
    received = CounterMetricFamily(
        "grpc_server_msg_received", "Request messages, one of each call.", labels=_METHOD
    )
    sent = CounterMetricFamily(
        "grpc_server_msg_sent",
        "Reply messages: one of each good unary call, every chunk of a stream.",
        labels=_METHOD,
    )
    for rpc in rpcs:
        # First those that ended: none must have ended that has not begun.
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

    `remaining_s` is what its deadline still had to run, None without one. A caller whose
    deadline passes resets the call, and that may arrive a moment before our own clock agrees.
    """
    if remaining_s is not None and remaining_s <= _DEADLINE_MARGIN_S:
        return "DEADLINE_EXCEEDED"
    return "CANCELLED"
