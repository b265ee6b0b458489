"""ONNX Runtime's telemetry is disabled before ONNX Runtime is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_telemetry import OPEN_A_MODEL, files_written

import tiny_models


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path, "tiny") / "decode.onnx"


def test_no_telemetry_is_stored(tmp_path: Path, graph: Path) -> None:
    program = OPEN_A_MODEL.format(package="latentserve_server.engine", name="session")
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
