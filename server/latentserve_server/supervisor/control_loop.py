"""Event loop of the supervisor, which starts, restarts and stops workers.

The supervisor serves no calls and loads neither gRPC nor ONNX Runtime, so that a crash in these
libraries ends a worker but not the supervisor. One thread handles all events.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from prometheus_client import CollectorRegistry

from latentserve_server import exit_status
from latentserve_server.config import Settings
from latentserve_server.errors import LatentserveError
from latentserve_server.observability.metrics_server import MetricsServer
from latentserve_server.repository.lifecycle import Outcome
from latentserve_server.supervisor.ipc import IpcRequest
from latentserve_server.supervisor.messages import CannotStart, Reload, Serving
from latentserve_server.supervisor.metrics_aggregation import AggregatedCollector
from latentserve_server.supervisor.probes import ServingWorkers, StateRequest, server_state
from latentserve_server.supervisor.reload import SharedReload, reload_workers
from latentserve_server.supervisor.restart_policy import RestartPolicy
from latentserve_server.supervisor.reuse_port import ReservedPort
from latentserve_server.supervisor.worker_metrics import WorkerMetrics
from latentserve_server.supervisor.worker_process import (
    WORKER_PROGRAM,
    WorkerExited,
    WorkerMessage,
    WorkerProcess,
)
from latentserve_server.supervisor.worker_slot import WorkerSlot

log = logging.getLogger(__name__)

# Added to the drain delay and the grace period, because loading a model cannot be interrupted.
_STOP_MARGIN_S, _STOP_NOW_TIMEOUT_S = 30.0, 15.0
_MAX_WAIT_S = 1.0  # Python handles a signal that arrives just before a wait only after the wait
_CANNOT_START = (exit_status.SETTINGS, exit_status.STARTUP)


@dataclass(frozen=True)
class Signalled:
    """Event: this process received a signal."""

    number: int


Event = WorkerMessage | WorkerExited | Signalled | StateRequest
Launch = Callable[[int], WorkerProcess]


class Supervisor:
    """Keeps all workers running until a signal. `run` is the loop; tests call `step` directly.

    Args:
        settings: settings of the server.
        launch: starts the worker with a given number; its messages and its exit arrive as events.
        aggregated: collector that workers are added to and removed from.
        metrics: metrics of the supervisor itself.
        make_restarts: creates the restart policy of a worker.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        launch: Launch,
        aggregated: AggregatedCollector,
        metrics: WorkerMetrics,
        *,
        make_restarts: Callable[[], RestartPolicy] = RestartPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._launch = launch
        self._aggregated = aggregated
        self._metrics = metrics
        self._clock = clock
        self._ping_timeout_s = settings.watchdog_s if settings.watchdog_exit == "yes" else 0.0
        self._started = self._last_step_at = clock()
        self.workers = [
            WorkerSlot(number, make_restarts()) for number in range(1, settings.workers + 1)
        ]
        self._ever_served = self._all_served = False
        self._stops = 0
        self._kill_at: float | None = None
        self._status = exit_status.STOPPED
        self._failure = ""
        self._unclean_exits: list[str] = []  # workers that failed in the stop
        self._cut_off = False
        self._reload_by_signal = SharedReload(lambda: self._reload_all(frozenset()))

    # --- the loop -----------------------------------------------------------------------------

    def run(self, events: queue.SimpleQueue[Event]) -> int:
        """Run until all workers have ended; return the exit status."""
        self.step(None)
        while not self.ended:
            try:
                event = events.get(timeout=min(self.wait_s, _MAX_WAIT_S))
            except queue.Empty:
                event = None
            self.step(event)
        return self.finish()

    @property
    def ended(self) -> bool:
        """Whether a stop was requested and all workers have exited."""
        return bool(self._stops) and not self._processes()

    @property
    def wait_s(self) -> float:
        """Seconds until the next action that is due without an event; infinity for none."""
        due = [worker.start_at for worker in self.workers if worker.start_at is not None]
        if self._ping_timeout_s:
            due.append(self._clock() + min(self._ping_timeout_s / 4, 1.0))
        if self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min(due, default=inf) - self._clock())

    def step(self, event: Event | None) -> None:
        """Handle one event, unless it is None, then run all actions that are due."""
        if isinstance(event, Signalled):
            self._on_signal(event.number)
        elif isinstance(event, WorkerMessage):
            self._on_message(event.process, event.message)
        elif isinstance(event, WorkerExited):
            self._on_exit(event.process, event.status)
        elif isinstance(event, StateRequest):
            event.reply.set_result(ServingWorkers.of(self.workers, stopping=self._stops > 0))
        now = self._clock()
        for worker in self.workers:
            if worker.start_at is not None and worker.start_at <= now:
                self._start(worker)
        if self._ping_timeout_s and not self._stops:
            paused = now - self._last_step_at > self._ping_timeout_s / 2
            for worker in self.workers:
                worker.check_liveness(now, self._ping_timeout_s, reset=paused)
        self._last_step_at = now
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            for process in self._processes():
                log.error("worker %d did not stop in time and is killed", process.number)
                process.kill()
        serving = sum(worker.serving_since is not None for worker in self.workers)
        running = len(self._processes())
        self._metrics.update(
            serving=serving, starting=running - serving, down=len(self.workers) - running
        )

    def finish(self) -> int:
        """Write the last log line; return the exit status."""
        if self._status != exit_status.STOPPED:
            log.error("latentserve-server: %s", self._failure)
        elif self._unclean_exits:
            self._status = exit_status.UNCLEAN_STOP
            log.error("stopped, but calls were cut off: %s", "; ".join(self._unclean_exits))
        elif self._cut_off:
            why = "by a second signal" if self._stops > 1 else "at the end of the grace"
            log.warning("stopped: calls were cut off %s", why)
        else:
            log.info("stopped: all %d workers ended in order", len(self.workers))
        return self._status

    # --- event handlers -----------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            if not self._stops and self._reload_by_signal.request():
                log.info("SIGHUP: all workers reload")
            return
        if self._stops:
            log.warning("%s received again: all workers stop at once", name)
        else:
            log.info("%s: the workers finish the calls in flight and stop", name)
        self._stop()

    def _stop(self) -> None:
        """Stop all workers: the first time after a drain, the second time at once."""
        self._stops += 1
        timeout_s = _STOP_NOW_TIMEOUT_S
        if self._stops == 1:
            timeout_s = self._settings.drain_delay_s + self._settings.grace_s + _STOP_MARGIN_S
        kill_at = self._clock() + timeout_s
        # Further signals must not postpone it.
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        for worker in self.workers:
            worker.start_at = None
        if self._stops <= 2:
            for process in self._processes():
                process.stop()

    def _on_message(self, process: WorkerProcess, message: object) -> None:
        worker = self._worker_of(process)
        if isinstance(message, Serving):
            worker.serving_since = self._clock()
            self._ever_served = True
            log.info("worker %d (process %d) is serving", process.number, process.pid)
            if not self._all_served and all(w.serving_since is not None for w in self.workers):
                self._all_served = True
                log.info(
                    "all %d workers are serving on %s, %.1f s after the start",
                    len(self.workers),
                    self._settings.listen,
                    self._clock() - self._started,
                )
        elif isinstance(message, CannotStart):
            worker.reason = message.reason
        elif isinstance(message, IpcRequest) and isinstance(message.body, Reload):
            arguments = (process, message, message.body.names)
            try:
                threading.Thread(target=self._reply_to_reload, args=arguments, daemon=True).start()
            except RuntimeError as error:  # no more threads
                process.reply(message, LatentserveError(f"the reload failed: {error}"))

    def _start(self, worker: WorkerSlot) -> None:
        worker.start_at = worker.pinged_at = worker.ping = None
        worker.reason = ""
        try:
            worker.process = self._launch(worker.number)
        except OSError as error:
            self._schedule_restart(worker, None, f"could not be started: {error}", 0.0)
            return
        self._aggregated.add(worker.process)

    def _on_exit(self, process: WorkerProcess, status: int) -> None:
        worker = self._worker_of(process)
        served_s = 0.0 if worker.serving_since is None else self._clock() - worker.serving_since
        had_served = worker.serving_since is not None
        worker.process, worker.serving_since = None, None
        self._aggregated.retire(process)
        how = f"(process {process.pid}) {exit_status.describe(status)}"
        if self._stops:
            log.info("worker %d %s", worker.number, how)
            # A worker that never served had no calls. The signal may have ended it before it
            # installed its handlers.
            if status and had_served:
                self._unclean_exits.append(f"worker {worker.number} {how}")
            self._cut_off |= process.cut_off
        else:
            self._schedule_restart(worker, status, how, served_s)

    def _schedule_restart(
        self, worker: WorkerSlot, status: int | None, how: str, served_s: float
    ) -> None:
        """Restart a worker after a delay, or give up."""
        self._metrics.restarted(worker.number, status)
        delay_s = worker.restarts.record_exit(served_s)
        if status in _CANNOT_START and not self._ever_served:
            self._give_up(
                status or exit_status.STARTUP, worker.reason or f"worker {worker.number} {how}"
            )
        elif worker.restarts.exhausted and not self._any_healthy():
            self._give_up(
                exit_status.WORKERS_DIE,
                f"giving up: worker {worker.number} died {worker.restarts.early_exits} times in a "
                f"row, and no other worker is serving; the last time it {how}",
            )
        else:
            worker.start_at = self._clock() + delay_s
            log.error(
                "worker %d %s after serving for %.1f s%s; it restarts in %g s",
                worker.number,
                how,
                served_s,
                f" ({worker.reason})" if worker.reason else "",
                delay_s,
            )

    def _give_up(self, status: int, why: str) -> None:
        self._status, self._failure = status, why
        log.error("a restart cannot fix the failure of a worker; all workers stop")
        self._stop()

    def _any_healthy(self) -> bool:
        """Whether a worker is serving, or is about to restart after a healthy run."""
        return any(
            worker.serving_since is not None or not worker.restarts.early_exits
            for worker in self.workers
        )

    def _worker_of(self, process: WorkerProcess) -> WorkerSlot:
        return self.workers[process.number - 1]

    def _processes(self) -> list[WorkerProcess]:
        return [worker.process for worker in self.workers if worker.process is not None]

    # --- reloads, each on a separate thread ----------------------------------------------------

    def _reply_to_reload(
        self, process: WorkerProcess, request: IpcRequest, names: frozenset[str]
    ) -> None:
        try:
            reply: object = self._reload_all(names)
        except Exception as error:  # noqa: BLE001 - the requesting worker raises it
            reply = error
        process.reply(request, reply)

    def _reload_all(self, names: frozenset[str]) -> list[Outcome]:
        return reload_workers(self._processes(), names)


def supervise(
    settings: Settings,
    program: Sequence[str] = WORKER_PROGRAM,
    make_restarts: Callable[[], RestartPolicy] = RestartPolicy,
) -> int:
    """Serve with several workers until a signal; return the exit status.

    `program` is the command line of a worker, see `worker_process`; `make_restarts` creates the
    restart policy of each. Raises a StartupError if the serving or the metrics port cannot be
    bound.
    """
    port = ReservedPort(settings.listen, shared=settings.reuse_port == "yes")
    settings = replace(settings, listen=port.address)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    aggregated, registry = AggregatedCollector(), CollectorRegistry()
    metrics = WorkerMetrics(registry)
    registry.register(aggregated)
    with contextlib.ExitStack() as stack:
        stack.callback(port.close)
        stack.callback(aggregated.close)
        if settings.metrics_listen:
            state = functools.partial(server_state, events.put)
            stack.callback(MetricsServer(registry, settings.metrics_listen, state).close)
            threading.Thread(target=aggregated.poll, name="metrics-poll", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: events.put(Signalled(number)))
        supervisor = Supervisor(
            settings,
            lambda number: WorkerProcess(number, settings, program, events.put),
            aggregated,
            metrics,
            make_restarts=make_restarts,
        )
        try:
            return supervisor.run(events)
        except Exception as error:  # noqa: BLE001 - the workers drain and end with this process
            exit_status.end_failed("the supervisor", error)
