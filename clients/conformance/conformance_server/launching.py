"""The fixture as a process of its own."""

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
    """The running servers."""

    def __init__(self, process: subprocess.Popen[str], addresses: dict[str, str]) -> None:
        self._process = process
        self.addresses = addresses

    def break_as(self, name: str) -> None:
        """Break the servers in one way; "none" mends them. Raises RuntimeError if they cannot."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        stdin.write(f"break {name}\n")
        stdin.flush()
        if (answer := stdout.readline().strip()) != "ok":
            raise RuntimeError(f"the servers cannot be broken by {name!r}: {answer}")


@contextlib.contextmanager
def launched(servers_file: Path, log: Path, transport: str = "aio") -> Iterator[Fixture]:
    """Start the servers and write their addresses to a file; stop them at the end.

    Raises RuntimeError, with what they wrote to `log`, where they do not start or do not stop.
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
            # What an operator's shell sets must not change the servers.
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
                raise RuntimeError(f"the servers ended with {status}:\n{log.read_text()}")
        finally:
            process.kill()
