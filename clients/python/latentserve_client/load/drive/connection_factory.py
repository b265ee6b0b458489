"""Opens connections on the completion queue of grpcio, with grpc.aio as the fallback.

The completion queue costs half of the CPU of grpc.aio (measurements in docs/load-testing.md), but
its calls are private to grpcio. A trial call before the load detects a grpcio that changed them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence

from latentserve_client.load.drive.aio_connection import AioConnections
from latentserve_client.load.drive.connection import Connection
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind, Request

log = logging.getLogger(__name__)

_TRIAL_EXTRA_S = 5.0


def open_connections(
    target: Target, count: int, transport: str, trial: tuple[CallKind, Request], timeout_s: float
) -> tuple[Sequence[Connection], str]:
    """Open `count` connections; return them and the name of their transport.

    Falls back from "cq" to "aio" with a warning if the trial call raises an exception or does not
    end. An error status is a valid end.
    """
    if transport == "cq":
        first = None
        try:
            # Imported here, because the import itself may fail with another grpcio.
            from latentserve_client.load.drive.completion_queue_connection import (
                CompletionQueueConnection,
            )

            first = CompletionQueueConnection(target)
            _try(first, *trial, timeout_s)
        except Exception as error:  # noqa: BLE001 - private API: any exception
            log.warning("completion queue: %r; falling back to grpc.aio, which is slower", error)
            if first is not None:
                with contextlib.suppress(Exception):
                    first.close()
        else:
            return [first, *(CompletionQueueConnection(target) for _ in range(count - 1))], "cq"
    return AioConnections.open(target, count), "aio"


def _try(connection: Connection, kind: CallKind, request: Request, timeout_s: float) -> None:
    ended = threading.Event()
    connection.start(kind, request.payload, timeout_s, lambda _: ended.set(), lambda _: None)
    if not ended.wait(timeout_s + _TRIAL_EXTRA_S):
        raise TimeoutError("the trial call did not end")
