"""The supervisor's handle of one worker process."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from prometheus_client.core import Metric

from latentserve_server.config import Settings
from latentserve_server.supervisor.ipc import IpcChannel, IpcClosed
from latentserve_server.supervisor.messages import (
    LastReport,
    Ping,
    Reload,
    ReportMetrics,
    ReportState,
    Stop,
)
from latentserve_server.vital_thread import VitalThread

log = logging.getLogger(__name__)

WORKER_PROGRAM = (sys.executable, "-m", "latentserve_server.supervisor.worker")
"""Command line of a worker; the file descriptor of its channel and its number are appended."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class WorkerMessage:
    """Event: a worker sent a message or an IpcRequest."""

    process: WorkerProcess
    message: object


@dataclass(frozen=True)
class WorkerExited:
    """Event: a worker process exited; `status` is in the convention of `subprocess`."""

    process: WorkerProcess
    status: int


class WorkerProcess:
    """One worker process, spawned and not forked: gRPC and ONNX Runtime do not support a fork.

    Args:
        number: number of the worker, from 1.
        settings: settings that the worker receives as its first message.
        program: command line.
        put: receives events from a separate thread: WorkerMessage, and WorkerExited as the last.

    Raises OSError if the process cannot be started.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        program: Sequence[str],
        put: Callable[[WorkerMessage | WorkerExited], None],
    ) -> None:
        self.number = number
        self._put = put
        self._lock = threading.Lock()
        self._reporting: Future[Any] | None = None
        self._state: Future[Any] | None = None
        self.last_report: Sequence[Metric] = ()
        self.cut_off = False
        ours, theirs = socket.socketpair()
        # This copy must be closed: the channel ends only when no process holds the other end.
        with theirs, _blocked_signals():
            descriptor = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [*program, str(descriptor), str(number)], pass_fds=(descriptor,)
                )
            except OSError:
                ours.close()
                raise
        try:
            # Queued: the supervisor must not wait for a worker that is frozen and does not read.
            self._channel = IpcChannel(Connection(ours.detach()), queued=True)
            self._channel.send(settings)
            VitalThread(self._watch, name=f"worker-{number}").start()
        except RuntimeError as error:  # no more threads
            self._process.kill()
            self._process.wait()
            raise OSError(str(error)) from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> None:
        """Request a drain and exit; the second time, an exit at once."""
        self._channel.send(Stop())

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.kill()

    def reload(self, names: frozenset[str]) -> Future[Any]:
        """Request a reload; the future returns the list of Outcome."""
        return self._channel.request(Reload(names))

    def reply(self, request: Any, body: object) -> None:
        """Reply to a request of the worker."""
        self._channel.reply(request, body)

    def request_report(self) -> Future[Any]:
        """Request the metrics; the reply is also stored as `last_report`."""
        with self._lock:
            # One request at a time: requests that a frozen process never reads fill the channel.
            if self._reporting is None or self._reporting.done():
                self._reporting = self._channel.request(ReportMetrics())
                self._reporting.add_done_callback(self._keep_report)
            return self._reporting

    def request_state(self) -> Future[Any]:
        """Request the ProcessState, one request at a time as for the metrics."""
        with self._lock:
            if self._state is None or self._state.done():
                self._state = self._channel.request(ReportState())
            return self._state

    def ping(self) -> Future[Any]:
        """Request a reply that shows that the worker is responsive."""
        return self._channel.request(Ping())

    def _keep_report(self, reporting: Future[Any]) -> None:
        if reporting.exception() is None:
            self.last_report = reporting.result()

    def _watch(self) -> None:
        with contextlib.suppress(IpcClosed):
            while True:
                message = self._channel.receive()
                if isinstance(message, LastReport):
                    self.last_report, self.cut_off = message.metrics, message.cut_off
                else:
                    self._put(WorkerMessage(self, message))
        self._put(WorkerExited(self, self._process.wait()))


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals, so that a new process inherits the mask until it installs its handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
