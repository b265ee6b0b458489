"""One generator or several: in this process, or each in a process of its own.

A tester in one process can be slower than the server. Each further process opens connections of
its own, takes every n-th arrival of the common timetable or its share of the concurrency, and sends
its rows of figures as they come. The monotonic clock is common to all.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from typing import Protocol

from latentserve_client.load.drive.connection import CallResult
from latentserve_client.load.drive.connection_factory import open_connections
from latentserve_client.load.drive.generator import CallLimits, LoadGenerator
from latentserve_client.load.measure.call_records import CallRecorder, Records
from latentserve_client.load.measure.validation import (
    ReferenceReply,
    ReplyValidator,
    ValidationCounts,
)
from latentserve_client.load.plan.run_spec import LoadSpec
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import Request, Workload

_START_LIMIT_S = 60.0
_MAX_FAILURES = 100  # whose texts are kept between two pieces; all are counted


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What a generator needs before any load."""

    target: Target
    workload: Workload
    limits: CallLimits
    connections: int
    transport: str  # "cq" or "aio"
    seed: int = 0
    references: tuple[ReferenceReply, ...] = ()  # empty: nothing is validated
    validate_share: float = 0.0
    number: int = 0  # of this process
    processes: int = 1


@dataclass(frozen=True, slots=True)
class PartialResult:
    """What a generator has done since the last piece."""

    rows: Records
    cpu_s: float  # CPU seconds of its process so far
    verdicts: ValidationCounts
    failures: tuple[tuple[int, str], ...]  # code and message of some failed calls
    running: bool  # whether calls are sent or in flight
    problem: str = ""  # what ended it against its will


class GeneratorProcess(Protocol):
    """A generator somewhere."""

    transport: str

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Begin at `start_ns`, send nothing after `end_ns`."""

    def stop(self) -> None:
        """Send nothing more."""

    def take(self) -> PartialResult:
        """Return what is new."""

    def close(self) -> None:
        """Cancel what is in flight and end."""


class InProcessGenerator:
    """A generator in threads of this process."""

    def __init__(self, setup: GeneratorConfig) -> None:
        self._setup = setup
        self._outcomes = CallRecorder()
        self._judge = ReplyValidator(setup.workload, setup.references, setup.validate_share)
        trial = (setup.workload.kinds[setup.workload.pool[0].kind], setup.workload.pool[0])
        self._connections, self.transport = open_connections(
            setup.target, setup.connections, setup.transport, trial, setup.limits.timeout_s
        )
        self._failures: list[tuple[int, str]] = []
        self._problem = ""
        self._generator: LoadGenerator | None = None
        self._thread: threading.Thread | None = None

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Begin in a thread."""
        setup = self._setup
        self._generator = LoadGenerator(
            self._connections,
            setup.workload,
            self._outcomes,
            setup.limits,
            seed=setup.seed + setup.number,
            on_reply=self._judge.on_reply if setup.references else None,
            on_failure=self._on_failure,
        )
        arguments = (self._generator, load, start_ns, end_ns)
        self._thread = threading.Thread(target=self._run, args=arguments, name="load", daemon=True)
        self._thread.start()

    def _run(self, generator: LoadGenerator, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        setup = self._setup
        try:
            if load.profile is None:
                concurrency = load.share(setup.number, setup.processes)
                generator.run_closed(concurrency, start_ns, end_ns)
            else:
                arrivals = load.profile.arrivals(load.arrivals, setup.seed)
                mine = itertools.islice(arrivals, setup.number, None, setup.processes)
                generator.run_open(_until(mine, (end_ns - start_ns) / 1e9), start_ns)
            generator.drain(setup.limits.timeout_s * (1 + setup.limits.retries) + 5)
        except Exception as error:  # noqa: BLE001 - shown by whoever takes the next piece
            self._problem = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        """Send nothing more."""
        if self._generator is not None:
            self._generator.stop()

    def take(self) -> PartialResult:
        """Return what is new."""
        # Asked before the rows are taken: what ends in between must not be lost.
        running = self._judge.busy or (self._thread is not None and self._thread.is_alive())
        failures, self._failures = tuple(self._failures), []
        rows = self._outcomes.take()
        return PartialResult(
            rows, time.process_time(), self._judge.take(), failures, running, self._problem
        )

    def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        self.stop()
        for connection in self._connections:
            connection.close()
        if self._thread is not None:
            self._thread.join()
        self._judge.close()

    def _on_failure(self, request: Request, ended: CallResult) -> None:
        if len(self._failures) < _MAX_FAILURES:
            self._failures.append((ended.code, ended.details))


class SubprocessGenerator:
    """A generator in a process of its own."""

    def __init__(self, setup: GeneratorConfig) -> None:
        context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()
        self.transport = ""

    def wait_until_ready(self) -> None:
        """Wait until its connections are open. Raises RuntimeError where that fails."""
        try:
            if not self._pipe.poll(_START_LIMIT_S):
                raise RuntimeError("a process of the load tester did not start")
            self.transport, problem = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a process of the load tester ended at its start") from None
        if problem:
            raise RuntimeError(problem)

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Begin."""
        self._pipe.send(("start", load, start_ns, end_ns))

    def stop(self) -> None:
        """Send nothing more."""
        self._pipe.send(("stop",))

    def take(self) -> PartialResult:
        """Return what is new."""
        try:
            self._pipe.send(("take",))
            piece: PartialResult = self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("a process of the load tester has died") from None
        return piece

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):  # it is gone
            self._pipe.send(("close",))
        self._process.join(_START_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def open_processes(setup: GeneratorConfig) -> Sequence[GeneratorProcess]:
    """Open the generators of `setup.processes`. Raises RuntimeError where one cannot start."""
    if setup.processes == 1:
        return [InProcessGenerator(setup)]
    each, more = divmod(setup.connections, setup.processes)
    own = [
        SubprocessGenerator(replace(setup, number=number, connections=each + (number < more)))
        for number in range(setup.processes)
    ]
    try:
        for process in own:
            process.wait_until_ready()
    except BaseException:
        for process in own:
            process.close()
        raise
    return own


def _serve(pipe: Pipe, setup: GeneratorConfig) -> None:
    """Run a generator as told by the pipe."""
    # Ctrl-C reaches every process of the terminal: the first one says what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = InProcessGenerator(setup)
    except Exception as error:  # noqa: BLE001 - said by the parent
        pipe.send(("", f"{type(error).__name__}: {error}"))
        return
    pipe.send((process.transport, ""))
    try:
        while True:
            command, *arguments = pipe.recv()
            if command == "start":
                process.start(*arguments)
            elif command == "stop":
                process.stop()
            elif command == "take":
                pipe.send(process.take())
            else:
                break
    except EOFError:
        pass  # the parent is gone
    process.close()


def _until(arrivals: Iterator[float], end_s: float) -> Iterator[float]:
    return itertools.takewhile(lambda arrival_s: arrival_s < end_s, arrivals)
