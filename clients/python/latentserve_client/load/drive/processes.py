"""Load generators in this process, or in one subprocess each.

A load tester in one process can be slower than the server. Each of n subprocesses opens separate
connections, takes every n-th arrival of the common schedule or its part of the concurrency, and
returns its call records when polled. All processes share the monotonic clock.
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
_MAX_FAILURES = 100  # messages kept per partial result; all failures are counted


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Configuration of a generator, for all its runs."""

    target: Target
    workload: Workload
    limits: CallLimits
    connections: int
    transport: str  # "cq" or "aio"
    seed: int = 0
    references: tuple[ReferenceReply, ...] = ()  # empty: no validation
    validate_share: float = 0.0
    number: int = 0  # index of this process
    processes: int = 1


@dataclass(frozen=True, slots=True)
class PartialResult:
    """Results of a generator since the previous partial result."""

    records: Records
    cpu_s: float  # CPU seconds of its process since the process started
    validation: ValidationCounts
    failures: tuple[tuple[int, str], ...]  # code and message of some failed calls
    running: bool  # whether calls are being sent or in flight
    problem: str = ""  # the error that ended the generator, or empty


class GeneratorProcess(Protocol):
    """A generator in this process or in a subprocess."""

    transport: str

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Send calls from `start_ns` until `end_ns`."""

    def stop(self) -> None:
        """Stop sending."""

    def take(self) -> PartialResult:
        """Return the results since the previous call."""

    def close(self) -> None:
        """Cancel the calls in flight and end the generator."""


class InProcessGenerator:
    """Generator in a thread of this process."""

    def __init__(self, config: GeneratorConfig) -> None:
        self._config = config
        self._recorder = CallRecorder()
        self._validator = ReplyValidator(config.workload, config.references, config.validate_share)
        trial = (config.workload.kinds[config.workload.pool[0].kind], config.workload.pool[0])
        self._connections, self.transport = open_connections(
            config.target, config.connections, config.transport, trial, config.limits.timeout_s
        )
        self._failures: list[tuple[int, str]] = []
        self._problem = ""
        self._generator: LoadGenerator | None = None
        self._thread: threading.Thread | None = None

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Start sending in a thread."""
        config = self._config
        self._generator = LoadGenerator(
            self._connections,
            config.workload,
            self._recorder,
            config.limits,
            seed=config.seed + config.number,
            on_reply=self._validator.on_reply if config.references else None,
            on_failure=self._on_failure,
        )
        arguments = (self._generator, load, start_ns, end_ns)
        self._thread = threading.Thread(target=self._run, args=arguments, name="load", daemon=True)
        self._thread.start()

    def _run(self, generator: LoadGenerator, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        config = self._config
        try:
            if load.profile is None:
                concurrency = load.share(config.number, config.processes)
                generator.run_closed(concurrency, start_ns, end_ns)
            else:
                arrivals = load.profile.arrivals(load.arrivals, config.seed)
                own = itertools.islice(arrivals, config.number, None, config.processes)
                generator.run_open(_until(own, (end_ns - start_ns) / 1e9), start_ns)
            generator.drain(config.limits.timeout_s * (1 + config.limits.retries) + 5)
        except Exception as error:  # noqa: BLE001 - reported in the next partial result
            self._problem = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        """Stop sending."""
        if self._generator is not None:
            self._generator.stop()

    def take(self) -> PartialResult:
        """Return the results since the previous call."""
        # Read before the records are taken, so that a call that ends in between is not lost.
        running = self._validator.busy or (self._thread is not None and self._thread.is_alive())
        failures, self._failures = tuple(self._failures), []
        records = self._recorder.take()
        return PartialResult(
            records, time.process_time(), self._validator.take(), failures, running, self._problem
        )

    def close(self) -> None:
        """Cancel the calls in flight and close the connections."""
        self.stop()
        for connection in self._connections:
            connection.close()
        if self._thread is not None:
            self._thread.join()
        self._validator.close()

    def _on_failure(self, request: Request, ended: CallResult) -> None:
        if len(self._failures) < _MAX_FAILURES:
            self._failures.append((ended.code, ended.details))


class SubprocessGenerator:
    """Generator in a subprocess."""

    def __init__(self, config: GeneratorConfig) -> None:
        context = multiprocessing.get_context("spawn")  # gRPC does not support fork
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_pipe, config), daemon=True)
        self._process.start()
        child_pipe.close()
        self.transport = ""

    def wait_until_ready(self) -> None:
        """Wait until the connections are open. Raises RuntimeError if that fails."""
        try:
            if not self._pipe.poll(_START_LIMIT_S):
                raise RuntimeError("a process of the load tester did not start")
            self.transport, problem = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a process of the load tester ended during its start") from None
        if problem:
            raise RuntimeError(problem)

    def start(self, load: LoadSpec, start_ns: int, end_ns: int) -> None:
        """Start sending."""
        self._pipe.send(("start", load, start_ns, end_ns))

    def stop(self) -> None:
        """Stop sending."""
        self._pipe.send(("stop",))

    def take(self) -> PartialResult:
        """Return the results since the previous call."""
        try:
            self._pipe.send(("take",))
            partial: PartialResult = self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("a process of the load tester has died") from None
        return partial

    def close(self) -> None:
        """End the subprocess."""
        with contextlib.suppress(OSError):  # the subprocess has ended
            self._pipe.send(("close",))
        self._process.join(_START_LIMIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def open_processes(config: GeneratorConfig) -> Sequence[GeneratorProcess]:
    """Open one generator per process of the configuration. Raises RuntimeError if one fails."""
    if config.processes == 1:
        return [InProcessGenerator(config)]
    base, remainder = divmod(config.connections, config.processes)
    generators = [
        SubprocessGenerator(replace(config, number=number, connections=base + (number < remainder)))
        for number in range(config.processes)
    ]
    try:
        for generator in generators:
            generator.wait_until_ready()
    except BaseException:
        for generator in generators:
            generator.close()
        raise
    return generators


def _serve(pipe: Pipe, config: GeneratorConfig) -> None:
    """Run a generator, controlled by the commands of the pipe."""
    # Ctrl-C reaches all processes of the terminal; the parent process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = InProcessGenerator(config)
    except Exception as error:  # noqa: BLE001 - reported by the parent
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
        pass  # the parent has ended
    process.close()


def _until(arrivals: Iterator[float], end_s: float) -> Iterator[float]:
    return itertools.takewhile(lambda arrival_s: arrival_s < end_s, arrivals)
