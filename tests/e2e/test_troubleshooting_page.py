"""docs/troubleshooting.md shows what the programs print.

Each `console` block has a command after `$` and its output. The test runs the command in the
situation that its heading describes, and compares. After a change of a text, rewrite the page by

    LATENTSERVE_UPDATE_PAGE=1 pytest tests/e2e/test_troubleshooting_page.py

and read the difference: the prose around the block must still fit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import trustme
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"^```console\n(\$ .*\n)((?:.*\n)*?)```$", re.MULTILINE)
TIME = "2026-11-30 12:00:00,000"


def blocks() -> dict[str, str]:
    """The output of each command of the page."""
    return {
        command[2:].strip(): output for command, output in BLOCK.findall(PAGE.read_text("utf-8"))
    }


def comparable(output: str) -> str:
    """Leave out what differs between runs and machines."""
    lines = [
        line
        for line in output.splitlines()
        # Our own lines of level INFO, and those of gRPC's core.
        if not re.match(r"[\d-]+ [\d:,]+ (\[worker \d+\] )?INFO |[IWE]\d{4} \d\d:", line)
    ]
    text = "".join(line.rstrip() + "\n" for line in lines)
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", TIME, text, flags=re.MULTILINE)
    text = re.sub(r"\[Makefile:\d+:", "[Makefile:100:", text)
    return re.sub(r"onnxruntime \d+\.\d+\.\d+", "onnxruntime 1.32.0", text)


# --- situations: each prepares the folder of the terminal, and starts a server where one is needed


def no_server(terminal: Any) -> None:
    pass


def old_python(terminal: Any) -> None:
    shutil.copy(ROOT / "Makefile", terminal.folder)
    program = terminal.scratch / "python3.10"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.12" || exit 1\n')
    program.chmod(0o755)
    terminal.environment["PATH"] = f"{terminal.scratch}:{terminal.environment['PATH']}"
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        terminal.environment.pop(name, None)


def server(terminal: Any) -> None:
    models(terminal)
    terminal.start("latentserve-server")


def models(terminal: Any) -> None:
    for name in ("mnist-vae", "mnist-gan"):
        shutil.copytree(ROOT / "exports" / name, terminal.folder / "exports" / name)


def damaged_model(terminal: Any) -> None:
    models(terminal)
    (graph,) = (terminal.folder / "exports" / "mnist-gan").rglob("decode.onnx")
    graph.write_bytes(graph.read_bytes()[:-1])
    terminal.start("latentserve-server")


def photo(terminal: Any) -> None:
    server(terminal)
    Image.new("RGB", (64, 48)).save(terminal.folder / "photo.png")


def program(call: str) -> Callable[[Any], None]:
    """A server with one image of a model, and a program that makes one call to it."""

    def prepare(terminal: Any) -> None:
        server(terminal)
        text = (
            "import numpy as np\n"
            "from latentserve_client import Client, LatentserveError\n"
            f'with Client("{terminal.address}") as client:\n'
            "    try:\n"
            f'        client.{call}, model="mnist-vae")\n'
            "    except LatentserveError as error:\n"
            "        print(error)\n"
        )
        for name in ("int64.py", "many_latents.py", "many_images.py"):
            (terminal.folder / name).write_text(text, "utf-8")

    return prepare


def short_queue(terminal: Any) -> None:
    models(terminal)
    terminal.start("latentserve-server --queue-bytes 65536")


def no_gpu(terminal: Any) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("THIS IS THE CUDA BUILD OF ONNX RUNTIME: its message is another one")
    models(terminal)


def token(terminal: Any) -> None:
    models(terminal)
    flags = "--allow-plaintext-token yes"
    terminal.start(f"latentserve-server {flags}", LATENTSERVE_TOKEN="a-token-of-this-test")  # noqa: S106


def authority(terminal: Any) -> None:
    server(terminal)
    trustme.CA().cert_pem.write_to_path(terminal.folder / "ca.pem")


def mixed_pictures(terminal: Any) -> None:
    folder = terminal.folder / "pictures"
    folder.mkdir()
    for number in range(20):
        pixels = np.full((28 + number % 2 * 4, 28), 10 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


SITUATIONS: dict[str, Callable[[Any], None]] = {
    "make PYTHON=python3.10 demo": old_python,
    "latentserve models": no_server,
    "latentserve-server --device cpu": server,
    "latentserve reconstruct --digits 3 --model mnist-vea": server,
    "latentserve sample": server,
    "latentserve sample --model mnist-gan": damaged_model,
    "latentserve encode --digits 3 --model mnist-gan": server,
    "latentserve encode photo.png --model mnist-vae": photo,
    "python int64.py": program("encode(np.zeros((10, 28, 28), np.int64)"),
    "python many_latents.py": program("decode(np.zeros((2000, 20), np.float32)"),
    "python many_images.py": program("encode(np.zeros((3000, 28, 28), np.float32)"),
    "latentserve sample --count 1000 --model mnist-vae --timeout-s 0.0001": server,
    "latentserve reconstruct --digits 100 --model mnist-vae": short_queue,
    "latentserve-server --device cuda": no_gpu,
    "latentserve models --server 127.0.0.1:50051": token,
    "latentserve models --tls-ca ca.pem --timeout-s 2": authority,
    "latentserve-training train --config mnist-ae --data pictures": mixed_pictures,
    "latentserve-training export runs/mnist-ae": no_server,
}


def test_every_block_has_its_situation() -> None:
    assert set(blocks()) == set(SITUATIONS)
    assert len(SITUATIONS) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("command", SITUATIONS)
def test_the_page_shows_what_is_printed(command: str, terminal: Any) -> None:
    SITUATIONS[command](terminal)
    _, output = terminal.run(command)
    printed = comparable(output)
    terminal.stop()
    assert printed.strip()
    if os.environ.get("LATENTSERVE_UPDATE_PAGE"):
        replace(command, printed)
    assert blocks()[command] == printed, "the page is out of date: see the top of this file"


def replace(command: str, printed: str) -> None:
    """Write the output into the block of the page."""

    def block(found: re.Match[str]) -> str:
        return f"```console\n{found[1]}{printed}```" if found[1] == f"$ {command}\n" else found[0]

    PAGE.write_text(BLOCK.sub(block, PAGE.read_text("utf-8")), "utf-8")


def test_what_is_compared() -> None:
    output = (
        "2026-01-02 03:04:05,678 INFO    latentserve_server: latentserve 0.1.0\n"
        "2026-01-02 03:04:05,678 ERROR   latentserve_server: no  \n"
        "E1130 21:36:40.083875    4814 add_port.cc:83] Failed\n"
    )
    assert comparable(output) == f"{TIME} ERROR   latentserve_server: no\n"
