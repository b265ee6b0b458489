"""Server processes of the benchmark; each is started once and runs until the end."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import processes
from bench.requests import WrongReply

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 40.0
ECHO = Path(__file__).parents[1] / "echo_server.py"
_METRICS_AT = re.compile(r"metrics are at (http://\S+)")
_TOTALS = {
    "calls": "latentserve_queue_seconds_count",
    "queue_s": "latentserve_queue_seconds_sum",
    "batches": "latentserve_engine_seconds_count",
    "engine_s": "latentserve_engine_seconds_sum",
    "rows": "latentserve_batch_rows_sum",
}


class NotServing(Exception):
    """A server does not start; the text has the last lines of its log."""


@dataclass
class Server:
    """A running server, its address and its set-up."""

    name: str
    command: Sequence[str]
    address: str
    log: Path
    setup: str = ""
    peer: bool = False
    start_s: float = 0.0
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )

    def wait(self, checked_call: Callable[[], object]) -> None:
        """Wait for the first correct reply, and set `start_s`.

        Raises NotServing after a timeout, a wrong reply, or if the process has exited.
        """
        while True:
            try:
                checked_call()
            except grpc.RpcError as error:
                problem = str(error.code() if isinstance(error, grpc.Call) else error)
            except WrongReply as error:
                raise NotServing(f"{self.name}: {error}") from error
            else:
                self.start_s = time.monotonic() - self.started
                return
            late = time.monotonic() - self.started > START_TIMEOUT_S
            if late or self.process.poll() is not None:
                last = " | ".join(self.log.read_text("utf-8", "replace").splitlines()[-4:])
                raise NotServing(f"{self.name} is not serving ({problem}): {last[-600:]}")
            time.sleep(0.02)

    def wait_for_line(self, pattern: str) -> None:
        """Wait until the log matches a pattern; raises NotServing after a timeout."""
        while not re.search(pattern, self.log.read_text("utf-8", "replace")):
            if time.monotonic() - self.started > START_TIMEOUT_S or self.process.poll() is not None:
                raise NotServing(f"{self.name}: its log has no line {pattern!r}")
            time.sleep(0.02)

    @property
    def pids(self) -> list[int]:
        """The process ids of the server and its descendants."""
        return processes.process_tree(self.process.pid)

    def totals(self) -> dict[str, float]:
        """Return the sums of its metrics; empty for other servers than ours."""
        found = _METRICS_AT.search(self.log.read_text("utf-8", "replace"))
        if found is None:
            return {}
        with urllib.request.urlopen(found.group(1), timeout=10.0) as reply:  # noqa: S310 - ours
            text = reply.read().decode()
        sums = dict.fromkeys(_TOTALS, 0.0)
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            for name, metric in _TOTALS.items():
                if series.startswith(metric + "{"):
                    sums[name] += float(value)
        return sums

    def stop(self) -> None:
        """Terminate the server, and kill its processes after a timeout."""
        pids = self.pids
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
            self.process.wait()


def own(
    name: str, exports: Path, scratch: Path, transport: str, workers: int = 1, *more: str
) -> Server:
    """Start our server with one thread per model, otherwise with default settings."""
    address = free_address()
    flags = ["--device", "cpu", "--threads", "1", "--transport", transport, *more]
    flags += ["--workers", str(workers)]
    command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
    command += ["--listen", address, "--metrics-listen", "127.0.0.1:0", *flags]
    log = scratch / f"{name.replace(' ', '')}.log"
    server = Server(name, command, address, log, " ".join(flags))
    if workers > 1:
        with _stopped_on_failure(server):
            server.wait_for_line("all .* workers are serving")
    return server


def empty(name: str, scratch: Path) -> Server:
    """Start the server for empty calls."""
    address = free_address()
    port = address.rpartition(":")[2]
    command = [sys.executable, str(ECHO), port]
    server = Server(name, command, address, scratch / "empty.log", "echo_server.py")

    def call() -> None:
        with grpc.insecure_channel(address) as channel:
            channel.unary_unary("/echo")(b"", timeout=1.0)

    with _stopped_on_failure(server):
        server.wait(call)
    return server


@contextlib.contextmanager
def _stopped_on_failure(server: Server) -> Iterator[None]:
    try:
        yield
    except BaseException:
        server.stop()
        raise


def free_address() -> str:
    """Return a free loopback address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"
