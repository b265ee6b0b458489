"""A terminal for the commands that the documentation prints."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DEFAULT_ADDRESS = "127.0.0.1:50051"
COMMAND_LIMIT_S = 300.0  # a hang must fail; a busy machine may take long
START_LIMIT_S = 60.0


@dataclass
class Terminal:
    """Runs commands as a reader of the pages types them, with a free port in place of 50051.

    `folder` is the current folder; a `cd` in a command changes it. The programs of this test's
    environment come first in PATH, as after `. .venv/bin/activate`.
    """

    folder: Path
    scratch: Path  # for the files of the terminal itself
    address: str
    environment: dict[str, str]
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str) -> tuple[int, str]:
        """Run a command of any number of lines in bash; return exit status and output."""
        after = self.scratch / "folder"
        script = f"{self.localised(command)}\npwd >{shlex.quote(str(after))}\n"
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_LIMIT_S,
        )
        if done.returncode == 0:
            self.folder = Path(after.read_text("utf-8").strip())
        output = done.stdout.decode("utf-8", "replace")
        return done.returncode, output.replace(self.address, DEFAULT_ADDRESS)

    def start(self, command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a server that runs until the end of the test, and wait until it serves."""
        log_path = self.scratch / f"server-{len(self.servers)}.log"
        with log_path.open("wb") as log:
            server = subprocess.Popen(
                shlex.split(self.localised(command), comments=True),
                cwd=self.folder,
                env={**self.environment, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.servers.append(server)
        end = time.monotonic() + START_LIMIT_S
        while "is serving on" not in (text := log_path.read_text("utf-8")):
            assert server.poll() is None, f"{command}\n{text}"
            assert time.monotonic() < end, f"{command}\n{text}"
            time.sleep(0.05)
        return server

    def stop(self) -> None:
        """Stop all servers, as Ctrl-C does."""
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            assert server.wait(30) == 0
        self.servers.clear()

    def localised(self, text: str) -> str:
        """Return a text of a page with the port of this test."""
        return text.replace(DEFAULT_ADDRESS, self.address)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in an empty folder `latentserve`, which stands for the clone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folder, scratch = tmp_path / "latentserve", tmp_path / "terminal"
    folder.mkdir()
    scratch.mkdir()
    opened = Terminal(folder, scratch, address, _environment(address))
    try:
        yield opened
    finally:
        for server in opened.servers:
            if server.poll() is None:
                server.kill()
                server.wait(10)


def _environment(address: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LATENTSERVE_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "LATENTSERVE_LISTEN": address,
        "LATENTSERVE_SERVER": address,
        "LATENTSERVE_THREADS": "1",
    }
