"""Server subprocess for demonstrations and load tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from latentserve_client._client import Client
from latentserve_client._errors import LatentserveError

START_LIMIT_S = 30.0
STOP_LIMIT_S = 20.0


class ServerFailed(Exception):
    """The server did not start, did not serve in time or did not stop."""


class ServerProcess:
    """Server in a subprocess; leaving the context stops it."""

    def __init__(self, command: Sequence[str]) -> None:
        # A file instead of a pipe: nothing reads the output meanwhile, and a full pipe would block.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  -- closed in __exit__
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._process.poll() is None:
                self.stop()
        finally:
            self._log.close()

    def wait_until_serving(self, client: Client, limit_s: float = START_LIMIT_S) -> None:
        """Wait until the health service reports SERVING.

        Raises ServerFailed, with the last lines of the server output, if the server exits or the
        limit passes.
        """
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if (exit_code := self._process.poll()) is not None:
                raise ServerFailed(f"the server exited with code {exit_code}:\n{self.tail()}")
            try:
                if client.health(timeout_s=1.0) == "SERVING":
                    return
            except LatentserveError:
                pass  # not listening yet
            time.sleep(0.05)
        raise ServerFailed(f"the server did not serve within {limit_s:g} s:\n{self.tail()}")

    def stop(self, limit_s: float = STOP_LIMIT_S) -> int:
        """Stop the server with SIGTERM and return its exit code.

        Kills the server and raises ServerFailed if it does not stop within the limit.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ServerFailed(f"the server did not stop within {limit_s:g} s") from None

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the server output."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").splitlines()
        return "\n".join("    " + line for line in text[-lines:]) or "    (no output)"


def server_command(exports: Path, listen: str, device: str | None = None) -> list[str]:
    """Return the command that serves a model folder with this Python interpreter."""
    command = [sys.executable, "-m", "latentserve_server"]
    command += ["--exports", str(exports), "--listen", listen]
    return command + (["--device", device] if device else [])


def free_address() -> str:
    """Return an unused loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
