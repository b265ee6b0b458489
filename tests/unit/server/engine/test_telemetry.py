"""Tests that the server turns ONNX Runtime's telemetry off before it loads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models
from onnx_telemetry import OPEN_A_MODEL, files_written


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path, "tiny") / "decode.onnx"


def test_nothing_is_kept_for_an_upload(tmp_path: Path, graph: Path) -> None:
    program = OPEN_A_MODEL.format(package="latentserve_server.engine", name="session")
    assert files_written(tmp_path / "home", program, graph) == []


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path, graph: Path) -> None:
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
