"""Runner of real server processes, for tests over real connections."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from latentserve.v1 import (
    generative_service_pb2_grpc,
    model_service_pb2_grpc,
    tensor_pb2,
)

START_LIMIT_S = 30.0
# For tests of the start before a transport exists: they run with one transport only.
BEFORE_ANY_TRANSPORT = pytest.mark.parametrize("transport", ["aio"], indirect=True)
# For tests of code behind the transports: they run with one transport only, too.
EITHER_TRANSPORT = BEFORE_ANY_TRANSPORT
SLOW_SERVER = Path(__file__).parent / "slow_server.py"


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    log_path: Path
    address: str = ""

    @property
    def log(self) -> str:
        """Output of the process so far."""
        return self.log_path.read_text("utf-8")

    def wait_for_log(self, pattern: str, limit_s: float = START_LIMIT_S) -> re.Match[str]:
        """Wait until the log matches; fail if the process ends or the limit passes."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if match := re.search(pattern, self.log):
                return match
            if ended:
                raise AssertionError(
                    f"exit {self.process.returncode} before {pattern}:\n{self.log}"
                )
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} within {limit_s} s:\n{self.log}")

    def wait_until_serving(self, *, workers: bool = False) -> None:
        """Wait for the log line with the address; with several workers, until all serve."""
        pattern = r"all \d+ workers are serving on ([^, ]+)" if workers else r"is serving on (\S+)"
        self.address = self.wait_for_log(pattern).group(1)

    def worker_pids(self) -> dict[int, int]:
        """Return the current process id of each worker by its number."""
        found = re.findall(r"worker (\d+) \(process (\d+)\) is serving", self.log)
        return {int(number): int(pid) for number, pid in found}

    def stop(self, limit_s: float = 20.0) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Yield a channel with a separate connection."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(self.address, options=options) as channel:
            yield channel

    @contextlib.contextmanager
    def generative(self) -> Iterator[generative_service_pb2_grpc.GenerativeServiceStub]:
        """Yield a stub of GenerativeService."""
        with self.channel() as channel:
            yield generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def models(self) -> Iterator[model_service_pb2_grpc.ModelServiceStub]:
        """Yield a stub of ModelService."""
        with self.channel() as channel:
            yield model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def launched(
    exports: Path,
    log_path: Path,
    *flags: str,
    delay_s: float = 0.0,
    warm_up_delay_s: float = 0.0,
    program: Sequence[str] = ("-m", "latentserve_server"),
) -> Iterator[Server]:
    """Start a server on a free port without waiting for it; the delays slow down its engine."""
    if delay_s or warm_up_delay_s:
        program = [str(SLOW_SERVER), str(delay_s), str(warm_up_delay_s)]
    command = [sys.executable, *program, "--exports", str(exports)]
    if "--listen" not in flags:
        command += ["--listen", "127.0.0.1:0"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield Server(process, log_path)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def served(
    exports: Path, log_path: Path, *flags: str, delay_s: float = 0.0, **more: Any
) -> Iterator[Server]:
    """Start a server and wait until it serves."""
    with launched(exports, log_path, *flags, delay_s=delay_s, **more) as server:
        server.wait_until_serving(workers="--workers" in flags)
        yield server


def ref(name: str, version: int = 0) -> tensor_pb2.ModelRef:
    """Return a ModelRef."""
    return tensor_pb2.ModelRef(name=name, version=version)
