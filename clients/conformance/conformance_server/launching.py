"""Servers in a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SCRIPT = Path(__file__).resolve().parents[1] / "server.py"
_STOP_LIMIT_S = 20.0


class Fixture:
    """Running servers."""

    def __init__(self, process: subprocess.Popen[str], addresses: dict[str, str]) -> None:
        self._process = process
        self.addresses = addresses

    def break_as(self, name: str) -> None:
        """Apply a breakage; "none" removes it. Raises RuntimeError for an unknown one."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        stdin.write(f"break {name}\n")
        stdin.flush()
        if (reply := stdout.readline().strip()) != "ok":
            raise RuntimeError(f"the servers refused the breakage {name!r}: {reply}")


@contextlib.contextmanager
def launched(servers_file: Path, log: Path, transport: str = "aio") -> Iterator[Fixture]:
    """Start the servers, write their addresses to a file, and stop them at the end.

    Raises RuntimeError with the contents of `log` if they do not start or stop.
    """
    command = [sys.executable, str(_SCRIPT), "--stdin", "--transport", transport]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, "--out", str(servers_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Settings of the user's shell must not change the servers.
            env={k: v for k, v in os.environ.items() if not k.startswith("LATENTSERVE_")},
        ) as process,
    ):
        try:
            assert process.stdin is not None  # noqa: S101 - both are pipes
            assert process.stdout is not None  # noqa: S101
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the servers did not start:\n{log.read_text()}")
            yield Fixture(process, json.loads(line)["servers"])
            process.stdin.close()
            if status := process.wait(_STOP_LIMIT_S):
                raise RuntimeError(f"the servers exited with status {status}:\n{log.read_text()}")
        finally:
            process.kill()
