"""The servers that take turns: each is started once, and stays until all is measured."""

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
    """A server does not start; the text has its last words."""


@dataclass
class Server:
    """A running server, its address, and how it was set up."""

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

    def wait(self, answered: Callable[[], object]) -> None:
        """Wait until a call is answered rightly; that is when the start is over.

        Raises NotServing where that takes too long, where it has exited, or answers wrongly.
        """
        while True:
            try:
                answered()
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
                raise NotServing(f"{self.name} does not serve ({problem}): {last[-600:]}")
            time.sleep(0.02)

    def wait_for_line(self, pattern: str) -> None:
        """Wait until the log has it; raises NotServing where it does not come."""
        while not re.search(pattern, self.log.read_text("utf-8", "replace")):
            if time.monotonic() - self.started > START_TIMEOUT_S or self.process.poll() is not None:
                raise NotServing(f"{self.name}: its log does not say {pattern!r}")
            time.sleep(0.02)

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return processes.process_tree(self.process.pid)

    def totals(self) -> dict[str, float]:
        """Return what its metrics add up to; nothing for servers that are not ours."""
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
        """Ask it to stop, and kill what is left of it after a while."""
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
    """Start our server, with one thread for each model and else as it comes."""
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
    """Start the server of empty calls."""
    address = free_address()
    port = address.rpartition(":")[2]
    command = [sys.executable, str(ECHO), port]
    server = Server(name, command, address, scratch / "empty.log", "echo_server.py")

    def answered() -> None:
        with grpc.insecure_channel(address) as channel:
            channel.unary_unary("/echo")(b"", timeout=1.0)

    with _stopped_on_failure(server):
        server.wait(answered)
    return server


@contextlib.contextmanager
def _stopped_on_failure(server: Server) -> Iterator[None]:
    try:
        yield
    except BaseException:
        server.stop()
        raise


def free_address() -> str:
    """Return an address of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"
