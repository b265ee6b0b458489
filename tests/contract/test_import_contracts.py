"""Tests that the import contracts hold, and that an import in the wrong direction breaks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "server/latentserve_server",
    "training/latentserve_training",
    "clients/python/latentserve_client",
)
LINT = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The three packages side by side, with the configuration."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", "*.npz", "*.onnx")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / Path(package).name, ignore=ignored)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        # Before the installed packages, which are the checkout's own.
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_every_contract_holds(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "upwards"),
    [
        ("latentserve_server/batching/queue.py", "latentserve_server.services.reply"),
        ("latentserve_server/codec/tensors.py", "latentserve_server.app"),
        (
            "latentserve_server/transport/aio/server.py",
            "latentserve_server.transport.completion_queue.calls",
        ),
        ("latentserve_server/manifest/reader.py", "grpc"),
        ("latentserve_training/models/base.py", "latentserve_training.train.loop"),
        ("latentserve_training/data/load.py", "latentserve_training.evaluate.metric"),
        ("latentserve_client/_channel.py", "latentserve_client._client"),
    ],
)
def test_an_import_in_the_wrong_direction_breaks_a_contract(
    copy: Path, module: str, upwards: str
) -> None:
    path = copy / module
    path.write_text(path.read_text("utf-8") + f"\nimport {upwards}  # noqa\n", "utf-8")
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert upwards in result.stdout
