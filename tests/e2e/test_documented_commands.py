"""The commands and programs in README.md and docs/tutorial.md, run in their order.

Blocks of `sh` and `python` run; a block whose first line is `# NAME.EXTENSION` is saved under that
name. A line that starts `latentserve-server` runs until the end of the page.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/tutorial.md")

SKIPPED = {
    "make demo": "sets up an environment; CI runs it on a clean clone",
    "make test": "is the run that contains this test",
    ". .venv/bin/activate": "the environment of this test is first in PATH",
    "pip install": "this test must not change its environment",
    "grpcurl": "not a Python package; tests/integration/test_calls.py covers reflection",
    "docker compose": "needs an engine; `make compose-test` runs it",
}
"""Starts of commands that do not run here, and why."""

CHANGED = {
    "latentserve-training train --config mnist-vae": " --set training.epochs=1"
    " --set data.max_test_images=100",
    "latentserve-training train --config shapes.toml --data pictures": " --set training.epochs=2"
    " --set data.max_train_images=400",
}
"""Commands with options that make them shorter here: the results are tested elsewhere."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a shell block, without comments; a line that ends in a backslash goes on."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines) if line]


def skipped(command: str) -> bool:
    return command.startswith(tuple(SKIPPED))


def changed(command: str) -> str:
    return command + CHANGED.get(command, "")


def run_shell(terminal: Any, block: str) -> None:
    for command in commands(block):
        if skipped(command):
            continue
        if command.startswith("latentserve-server"):
            terminal.start(command)
            continue
        status, output = terminal.run(changed(command))
        assert status == 0, f"$ {command}\n{output}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_their_order(page: str, terminal: Any) -> None:
    shutil.copytree(ROOT / "exports", terminal.folder / "exports")
    ran = 0
    for language, block in blocks(page):
        named = re.match(r"# ([\w-]+\.\w+)\n", block)
        if named:
            (terminal.folder / named[1]).write_text(terminal.localised(block), "utf-8")
        elif language == "sh":
            run_shell(terminal, block)
        elif language == "python":
            program = terminal.scratch / "program.py"
            program.write_text(terminal.localised(block), "utf-8")
            status, output = terminal.run(f"python {program}")
            assert status == 0, f"{block}\n{output}"
        else:
            continue
        ran += 1
    terminal.stop()
    assert ran >= 5


def test_every_exception_is_needed() -> None:
    printed = [
        command
        for page in PAGES
        for language, block in blocks(page)
        if language == "sh"
        for command in commands(block)
    ]
    assert set(CHANGED) <= set(printed)
    for start in SKIPPED:
        assert any(command.startswith(start) for command in printed), start
    assert sum(not skipped(command) for command in printed) > 15


def test_a_command_that_fails_is_found(terminal: Any) -> None:
    with pytest.raises(AssertionError, match="no-such-folder"):
        run_shell(terminal, "cd .\nls no-such-folder\n")


def test_commands_of_a_block() -> None:
    block = "# first\nmake x   # why\na \\\n    b\n\ncurl http://h/#part\n"
    assert commands(block) == ["make x", "a      b", "curl http://h/#part"]
