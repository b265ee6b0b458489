"""Starts several workers on one port, starts those that die again, and stops them in order.

It serves no call itself, and loads neither gRPC nor ONNX Runtime: what can kill a worker cannot
kill it. All that happens comes as events to one thread.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from latentserve_server import exit_status
from latentserve_server.config import Settings
from latentserve_server.errors import LatentserveError
from latentserve_server.observability.metrics_server import serve_metrics
from latentserve_server.repository.lifecycle import Outcome
from latentserve_server.supervisor.ipc import IpcRequest
from latentserve_server.supervisor.messages import CannotStart, Reload, Serving
from latentserve_server.supervisor.metrics_aggregation import AggregatedCollector
from latentserve_server.supervisor.reload import reload_workers
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

# What a worker may take to stop beyond its own limits: models that load cannot be interrupted.
_STOP_MARGIN_S = 30.0
_STOP_NOW_LIMIT_S = 15.0
_CANNOT_START = (exit_status.SETTINGS, exit_status.STARTUP)


@dataclass(frozen=True)
class Signalled:
    """An event: this process got a signal."""

    number: int


Event = WorkerMessage | WorkerExited | Signalled
Launch = Callable[[int], WorkerProcess]


class Supervisor:
    """Keeps workers alive until a signal. `run` is all; tests call `step` by hand.

    Args:
        settings: what the operator decided.
        launch: starts the worker of a number; what becomes of it comes as events.
        totals: told of workers that come and go.
        make_restarts: makes the back-off of a worker.
        clock: monotonic seconds.
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
        self._silence_s = settings.watchdog_s if settings.watchdog_exit == "yes" else 0.0
        self._started = self._stepped_at = clock()
        self.slots = [
            WorkerSlot(number, make_restarts()) for number in range(1, settings.workers + 1)
        ]
        self._ever_served = False
        self._all_served = False
        self._stops = 0
        self._kill_at: float | None = None
        self._status = exit_status.STOPPED
        self._last_words = ""
        self._dead: list[str] = []  # what became of those that did not stop in order
        self._cut_off = False

    # --- the loop -----------------------------------------------------------------------------

    def run(self, events: queue.SimpleQueue[Event]) -> int:
        """Run until all workers have ended; return the exit status."""
        self.step(None)
        while not self.ended:
            try:
                event = events.get(timeout=self.wait_s)
            except queue.Empty:
                event = None
            self.step(event)
        return self.finish()

    @property
    def ended(self) -> bool:
        """Whether it was told to stop, and every worker has."""
        return bool(self._stops) and not self._processes()

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is due without an event, None where nothing is."""
        due = [slot.start_at for slot in self.slots if slot.start_at is not None]
        if self._silence_s:
            due.append(self._clock() + min(self._silence_s / 4, 1.0))
        if self._kill_at is not None:
            due.append(self._kill_at)
        return max(0.0, min(due) - self._clock()) if due else None

    def step(self, event: Event | None) -> None:
        """Handle one event, if there is one, and do what is due."""
        if isinstance(event, Signalled):
            self._signalled(event.number)
        elif isinstance(event, WorkerMessage):
            self._told(event.process, event.message)
        elif isinstance(event, WorkerExited):
            self._ended(event.process, event.status)
        now = self._clock()
        for slot in self.slots:
            if slot.start_at is not None and slot.start_at <= now:
                self._start(slot)
        if self._silence_s:
            paused = now - self._stepped_at > self._silence_s / 2
            for slot in self.slots:
                slot.listen_for_life(now, self._silence_s, anew=paused)
        self._stepped_at = now
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            for process in self._processes():
                log.error("worker %d did not stop in time and is killed", process.number)
                process.kill()
        serving = sum(slot.serving_since is not None for slot in self.slots)
        there = len(self._processes())
        self._metrics.update(
            serving=serving, starting=there - serving, down=len(self.slots) - there
        )

    def finish(self) -> int:
        """Write the last line; return the exit status."""
        if self._status != exit_status.STOPPED:
            log.error("latentserve-server: %s", self._last_words)
        elif self._dead:
            self._status = exit_status.UNCLEAN_STOP
            log.error("stopped, but calls were cut off: %s", "; ".join(self._dead))
        elif self._cut_off:
            why = "by a second signal" if self._stops > 1 else "at the end of the grace"
            log.warning("stopped: calls were cut off %s", why)
        else:
            log.info("stopped: all %d workers ended in order", len(self.slots))
        return self._status

    # --- what happens -------------------------------------------------------------------------

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            if not self._stops:
                log.info("SIGHUP: every worker reloads")
                threading.Thread(target=self._reload_by_signal, daemon=True).start()
            return
        if self._stops:
            log.warning("%s, once more: the workers stop at once", name)
        else:
            log.info("%s: the workers finish what is in flight and stop", name)
        self._stop()

    def _stop(self) -> None:
        """Tell all workers to stop; once more, at once."""
        self._stops += 1
        limit_s = _STOP_NOW_LIMIT_S
        if self._stops == 1:
            limit_s = self._settings.drain_delay_s + self._settings.grace_s + _STOP_MARGIN_S
        self._kill_at = self._clock() + limit_s
        for slot in self.slots:
            slot.start_at = None
        for process in self._processes():
            process.stop()

    def _told(self, process: WorkerProcess, message: object) -> None:
        slot = self._slot_of(process)
        if isinstance(message, Serving):
            slot.serving_since = self._clock()
            self._ever_served = True
            log.info("worker %d (process %d) serves", process.number, process.pid)
            if not self._all_served and all(s.serving_since is not None for s in self.slots):
                self._all_served = True
                log.info(
                    "all %d workers are serving on %s, %.1f s after the start",
                    len(self.slots),
                    self._settings.listen,
                    self._clock() - self._started,
                )
        elif isinstance(message, CannotStart):
            slot.reason = message.reason
        elif isinstance(message, IpcRequest) and isinstance(message.body, Reload):
            threading.Thread(
                target=self._answer_reload, args=(process, message, message.body.names), daemon=True
            ).start()

    def _start(self, slot: WorkerSlot) -> None:
        slot.start_at = slot.asked_at = slot.alive = None
        slot.reason = ""
        try:
            slot.process = self._launch(slot.number)
        except OSError as error:
            self._died(slot, None, f"could not be started: {error}", 0.0)
            return
        self._aggregated.add(slot.process)

    def _ended(self, process: WorkerProcess, status: int) -> None:
        slot = self._slot_of(process)
        served_s = 0.0 if slot.serving_since is None else self._clock() - slot.serving_since
        had_served = slot.serving_since is not None
        slot.process, slot.serving_since = None, None
        self._aggregated.retire(process)
        how = f"(process {process.pid}) {exit_status.describe(status)}"
        if self._stops:
            log.info("worker %d %s", slot.number, how)
            # One that never served had no calls; a signal may have met it unprepared.
            if status and had_served:
                self._dead.append(f"worker {slot.number} {how}")
            self._cut_off |= process.cut_off
        else:
            self._died(slot, status, how, served_s)

    def _died(self, slot: WorkerSlot, status: int | None, how: str, served_s: float) -> None:
        """Start a worker again later, or give up."""
        self._metrics.restarted(slot.number, status)
        delay_s = slot.restarts.died(served_s)
        if status in _CANNOT_START and not self._ever_served:
            self._give_up(
                status or exit_status.STARTUP, slot.reason or f"worker {slot.number} {how}"
            )
        elif slot.restarts.exhausted and not self._any_well():
            self._give_up(
                exit_status.WORKERS_DIE,
                f"gives up: worker {slot.number} died {slot.restarts.early_deaths} times in a "
                f"row, and no other serves; the last time it {how}",
            )
        else:
            slot.start_at = self._clock() + delay_s
            log.error(
                "worker %d %s after serving for %.1f s%s; it is started again in %g s",
                slot.number,
                how,
                served_s,
                f" ({slot.reason})" if slot.reason else "",
                delay_s,
            )

    def _give_up(self, status: int, why: str) -> None:
        self._status, self._last_words = status, why
        log.error("worker trouble that no restart mends; the others stop")
        self._stop()

    def _any_well(self) -> bool:
        """Whether a worker serves, or one that ran well is about to be started again."""
        return any(
            slot.serving_since is not None or not slot.restarts.early_deaths for slot in self.slots
        )

    def _slot_of(self, process: WorkerProcess) -> WorkerSlot:
        return self.slots[process.number - 1]

    def _processes(self) -> list[WorkerProcess]:
        return [slot.process for slot in self.slots if slot.process is not None]

    # --- reloads, each on a thread of its own ----------------------------------------------------

    def _answer_reload(
        self, process: WorkerProcess, request: IpcRequest, names: frozenset[str]
    ) -> None:
        try:
            answer: object = self._reload_all(names)
        except Exception as error:  # noqa: BLE001 - the worker that asked raises it
            answer = error
        process.answer(request, answer)

    def _reload_by_signal(self) -> None:
        try:
            self._reload_all(frozenset())
        except LatentserveError as error:
            log.error("the reload failed: %s", error)

    def _reload_all(self, names: frozenset[str]) -> list[Outcome]:
        return reload_workers(self._processes(), names)


def supervise(
    settings: Settings,
    program: Sequence[str] = WORKER_PROGRAM,
    make_restarts: Callable[[], RestartPolicy] = RestartPolicy,
) -> int:
    """Serve with several workers until a signal; return the exit status.

    `program` is the command line of a worker, see `process`; `make_restarts` makes their back-off.
    Raises a StartupError where the port, or that of the metrics, cannot be had.
    """
    port = ReservedPort(settings.listen, shared=settings.reuse_port == "yes")
    settings = replace(settings, listen=port.address)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    aggregated, registry = AggregatedCollector(), CollectorRegistry()
    metrics = WorkerMetrics(registry)
    registry.register(aggregated)
    try:
        if settings.metrics_listen:
            serve_metrics(registry, settings.metrics_listen)
            threading.Thread(target=aggregated.keep_fresh, name="totals", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: events.put(Signalled(number)))
        supervisor = Supervisor(
            settings,
            lambda number: WorkerProcess(number, settings, program, events.put),
            aggregated,
            metrics,
            make_restarts=make_restarts,
        )
        return supervisor.run(events)
    finally:
        aggregated.close()
        port.close()
