"""State of a server of several workers, for the probes of the metrics port.

The supervisor's loop says which workers serve, and each of these says in which state it is. So a
probe fails if the loop, all workers or their engines hang.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from latentserve_server.observability.metrics_server import ProcessState
from latentserve_server.supervisor.worker_process import WorkerProcess
from latentserve_server.supervisor.worker_slot import WorkerSlot

_LOOP_TIMEOUT_S = 1.0
# Longer than a worker waits for its event loop.
_WORKER_TIMEOUT_S = 1.5


@dataclass(frozen=True)
class ServingWorkers:
    """The workers that have reported that they serve, of how many, and whether all stop."""

    processes: Sequence[WorkerProcess]
    total: int
    stopping: bool

    @classmethod
    def of(cls, workers: Sequence[WorkerSlot], *, stopping: bool) -> ServingWorkers:
        """Return those of the supervisor."""
        serving = [w.process for w in workers if w.process and w.serving_since is not None]
        return cls(serving, len(workers), stopping)


@dataclass(frozen=True)
class StateRequest:
    """Event: a probe waits for `reply`."""

    reply: Future[ServingWorkers] = field(default_factory=Future)


def server_state(put: Callable[[StateRequest], None]) -> ProcessState:
    """Return the state of the server: ready if any worker is. `put` sends to the loop."""
    request = StateRequest()
    put(request)
    try:
        workers = request.reply.result(_LOOP_TIMEOUT_S)
    except TimeoutError:
        return ProcessState(live=False, ready=False, text="the supervisor does not respond")
    if workers.stopping:
        return ProcessState(live=True, ready=False, text="stopping")
    pending = [process.request_state() for process in workers.processes]
    replied = wait(pending, _WORKER_TIMEOUT_S).done
    states: list[ProcessState] = [
        future.result() for future in replied if future.exception() is None
    ]
    ready = sum(state.ready for state in states)
    # The supervisor replaces a worker that has exited; one that starts is not stuck.
    starting = len(workers.processes) < workers.total
    return ProcessState(
        live=starting or any(state.live for state in states),
        ready=ready > 0,
        text=f"{ready} of {workers.total} workers are ready",
    )
