"""State of one process, for the probes of the metrics port."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from latentserve_server.observability.metrics_server import ProcessState

_LOOP_TIMEOUT_S = 1.0


def process_state(
    loop: asyncio.AbstractEventLoop, *, serving: bool, stuck: bool, stopping: bool
) -> ProcessState:
    """Return the state as gRPC's health service reports it; not for use on the event loop.

    A process that is not live must be replaced: its event loop or an engine hangs.
    """
    responded = threading.Event()
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(responded.set)
    if not responded.wait(_LOOP_TIMEOUT_S):
        return ProcessState(live=False, ready=False, text="the event loop does not respond")
    if stuck:
        return ProcessState(live=False, ready=False, text="an engine is stuck")
    if serving:
        return ProcessState(live=True, ready=True, text="serving")
    return ProcessState(live=True, ready=False, text="stopping" if stopping else "starting")
