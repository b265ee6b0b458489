"""ONNX Runtime's telemetry is disabled before ONNX Runtime is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models

OPEN_A_MODEL = """
import sys
from pathlib import Path
from {package} import {name}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def files_written(home: Path, program: str, graph: Path, **environment: str) -> list[str]:
    """Return the files that a process that opens a graph writes to an empty home folder."""
    home.mkdir()
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI")
    }
    subprocess.run(
        [sys.executable, "-c", program, str(graph)],
        env={**kept, "HOME": str(home), **environment},
        check=True,
        timeout=60,
    )
    return sorted(path.name for path in home.rglob("*"))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path, "tiny") / "decode.onnx"


@pytest.mark.parametrize(
    ("package", "name"),
    [("latentserve_server.engine", "session"), ("latentserve_training", "errors")],
)
def test_no_telemetry_is_stored(tmp_path: Path, graph: Path, package: str, name: str) -> None:
    program = OPEN_A_MODEL.format(package=package, name=name)
    assert files_written(tmp_path / "home", program, graph) == []


def test_a_read_only_home_is_allowed(tmp_path: Path, graph: Path) -> None:
    """As in a container with a read-only root."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    program = OPEN_A_MODEL.format(package="latentserve_server.engine", name="session")
    subprocess.run(
        [sys.executable, "-c", program, str(graph)],
        env={**os.environ, "HOME": str(home)},
        check=True,
        timeout=60,
    )
