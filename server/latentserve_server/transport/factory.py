"""Choice of the transport, with grpc.aio as the fallback."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from latentserve_server.observability.metrics import Metrics
from latentserve_server.observability.tracing import Tracing
from latentserve_server.transport.aio.server import AioTransport
from latentserve_server.transport.base import Transport
from latentserve_server.transport.completion_queue.server import (
    CompletionQueueTransport,
    find_incompatibility,
)
from latentserve_server.transport.flow_control.reply_quota import ReplyLimits

log = logging.getLogger(__name__)


def choose_transport(
    name: str,
    executor: ThreadPoolExecutor,
    metrics: Metrics,
    tracing: Tracing | None = None,
    limits: ReplyLimits | None = None,
) -> Transport:
    """Return the transport `aio` or `cq`. If cq cannot work, log a warning and return aio."""
    if name == "cq":
        reason = find_incompatibility()
        if reason is None:
            return CompletionQueueTransport(executor, metrics, tracing, limits)
        log.warning("--transport cq: falling back to grpc.aio: %s", reason)
    return AioTransport(executor, metrics, tracing, limits)
