"""Languages with a conformance runner: required tools, build and run commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DESCRIPTION = "conformance*.json"  # one file per runner
_PROGRESS_S = 15.0


class CannotRun(Exception):
    """A language cannot be built or run; the message contains the reason."""


@dataclass(frozen=True)
class Language:
    """One client with its runner, as described by its conformance.json."""

    name: str
    folder: Path
    tools: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]

    def missing_tools(self) -> list[str]:
        """Return the tools that are not in PATH."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def matches(self, name: str) -> bool:
        """Whether a name is the language or one of its tools."""
        return name == self.name or name in self.tools


def find_languages(clients: Path) -> list[Language]:
    """Return every client with a conformance.json. Raises ValueError for an invalid one."""
    return [_read(path) for path in sorted(clients.glob(f"*/{_DESCRIPTION}"))]


def _read(path: Path) -> Language:
    document = json.loads(path.read_text("utf-8"))
    try:
        return Language(
            name=document["language"],
            folder=path.parent,
            tools=tuple(document["tools"]),
            build=tuple(tuple(command) for command in document["build"]),
            run=tuple(document["run"]),
        )
    except KeyError as error:
        raise ValueError(f"{path} has no {error}") from error


def build(language: Language, log: Path) -> None:
    """Build a runner and print progress. Raises CannotRun with the end of its output."""
    for command in language.build:
        started = reported = time.monotonic()
        print(f"{language.name}: {' '.join(command)}", flush=True)
        with (
            log.open("ab") as output,
            _started(language, command, stdout=output, stderr=subprocess.STDOUT) as process,
        ):
            while True:
                try:
                    status = process.wait(1)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() - reported >= _PROGRESS_S:
                        reported = time.monotonic()
                        print(f"{language.name}: still building, {reported - started:.0f} s")
        if status:
            tail = log.read_text("utf-8", "replace").splitlines()[-40:]
            raise CannotRun(f"`{' '.join(command)}` exited with {status}:\n" + "\n".join(tail))


def run(language: Language, arguments: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Run a runner; return its exit status and output. Raises CannotRun after the limit."""
    with _started(
        language, [*language.run, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise CannotRun(f"the runner did not exit within {limit_s:.0f} s") from None
    return process.returncode, output.decode("utf-8", "replace")


def _started(
    language: Language, command: Sequence[str], **streams: object
) -> subprocess.Popen[bytes]:
    """Start a command in the folder of a language; {python} is this interpreter."""
    program = [sys.executable if word == "{python}" else word for word in command]
    local = language.folder / program[0]
    if local.is_file():
        program[0] = str(local)
    try:
        return subprocess.Popen(program, cwd=language.folder, env=os.environ, **streams)  # type: ignore[call-overload,no-any-return]
    except OSError as error:
        raise CannotRun(f"{program[0]} cannot be started: {error.strerror}") from error
