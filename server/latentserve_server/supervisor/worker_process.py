"""One worker process, as the supervisor sees it."""

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
    Stop,
)

log = logging.getLogger(__name__)

WORKER_PROGRAM = (sys.executable, "-m", "latentserve_server.supervisor.worker")
"""The descriptor of its link and its number are added to it."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class WorkerMessage:
    """An event: a worker sent a message or a question."""

    process: WorkerProcess
    message: object


@dataclass(frozen=True)
class WorkerExited:
    """An event: a worker process is gone; `status` as `subprocess` has it."""

    process: WorkerProcess
    status: int


class WorkerProcess:
    """A process that was started anew, not forked: neither gRPC nor ONNX Runtime survives that.

    Args:
        number: of the worker, from 1.
        settings: what it is to do.
        program: the command line.
        put: takes what happens, from a thread: Told and, as the last, Ended.

    Raises OSError where it cannot be started.
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
        self.last_report: Sequence[Metric] = ()
        self.cut_off = False
        ours, theirs = socket.socketpair()
        # It must be gone for us to see the end of the process, which has the other copy.
        with theirs, _blocked_signals():
            descriptor = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [*program, str(descriptor), str(number)], pass_fds=(descriptor,)
                )
            except OSError:
                ours.close()
                raise
        self._channel = IpcChannel(Connection(ours.detach()))
        self._channel.tell(settings)
        threading.Thread(target=self._watch, name=f"worker-{number}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> None:
        """Tell it to drain and end; a second time, at once."""
        self._channel.tell(Stop())

    def kill(self) -> None:
        """End it by force."""
        self._process.kill()

    def reload(self, names: frozenset[str]) -> Future[Any]:
        """Ask it to reload; the future gives the outcomes."""
        return self._channel.ask(Reload(names))

    def answer(self, request: Any, body: object) -> None:
        """Answer a question that it asked."""
        self._channel.answer(request, body)

    def ask_report(self) -> Future[Any]:
        """Ask it for its metrics; the answer is kept as `last_report`, too."""
        with self._lock:
            # One question at a time: those that a frozen process never reads fill the link.
            if self._reporting is None or self._reporting.done():
                self._reporting = self._channel.ask(ReportMetrics())
                self._reporting.add_done_callback(self._keep_report)
            return self._reporting

    def ask_alive(self) -> Future[Any]:
        """Ask it for a sign of life."""
        return self._channel.ask(Ping())

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
    """Let a new process begin deaf to them, until it can handle them; it inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
