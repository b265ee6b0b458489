"""What is kept of the calls of one method: metrics, and a line in the log."""

from __future__ import annotations

from latentserve_server.metrics import Metrics
from latentserve_server.request_log import log_call
from latentserve_server.status import WireStatus


class Rpc:
    """Told of every call of one method, from any thread.

    Args:
        metrics: count the calls.
        method: its full name.
        streaming: whether it has many replies.
        logged: whether its calls are for the log.
    """

    def __init__(
        self, metrics: Metrics, method: str, *, streaming: bool, logged: bool = True
    ) -> None:
        self._method = method
        self._logged = logged
        self._metrics = metrics.rpc(method, streaming=streaming)
        self.begin = self._metrics.begin
        """A call began."""
        self.sent = self._metrics.sent
        """A message of a stream was sent."""

    def end(
        self, code_name: str, seconds: float, head: bytes, failure: WireStatus | None = None
    ) -> None:
        """A call ended; `head` is the beginning of its request, see `request_log.log_call`."""
        self._metrics.end(code_name, seconds)
        if self._logged:
            log_call(self._method, code_name, seconds, head, failure)
