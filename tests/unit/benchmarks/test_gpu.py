"""benchmarks/gpu.py with tiny sizes on the CPU, so that it works when a GPU is available."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu.py"


def run(tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--exports", str(tmp_path / "exports")]
    command += ["--model", "tiny", "--out", str(tmp_path / "out"), "--device", "cpu", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path / "exports", "tiny")


@pytest.mark.usefixtures("exports")
def test_cpu_measurements_are_made_and_gpu_measurements_are_listed_as_missing(
    tmp_path: Path,
) -> None:
    sizes = ("--rows", "1,3", "--workers", "2", "--seconds", "0.3", "--no-tests")
    done = run(tmp_path, *sizes)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "gpu.json").read_text("utf-8"))
    assert found["machine"]["provider"] == "CPUExecutionProvider"
    assert found["machine"]["model"] == "tiny version 1"
    assert set(found["engine_ms"]) == {"bare run", "plain run", "IO binding"}
    for times in found["engine_ms"].values():
        assert set(times) == {"1", "3"}
        assert all(0.0 < each < 1000.0 for each in times.values())
    server = found["server"]
    assert server["rows_per_request"] == 3
    assert server["rows_per_s"]["plain run"] > 0
    assert server["rows_per_s_by_workers"]["2"] > 0
    assert server["first_answer_s"]["(CPU)"] > 0
    missing = " ".join(found["missing"])
    for part in ("--device cpu was given", "TF32", "NHWC", "CUDA graphs", "float16"):
        assert part in missing
    report = (tmp_path / "out" / "gpu.md").read_text("utf-8")
    assert report in done.stdout
    assert "# latentserve without a GPU" in report
    assert "| rows | bare run | plain run | IO binding |" in report
    for line in found["missing"]:
        assert f"* {line}" in report


@pytest.mark.usefixtures("exports")
def test_measurements_beyond_the_time_limit_are_listed_as_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "--minutes", "0.01", "--no-tests")
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out" / "gpu.md").read_text("utf-8")
    assert "* bare run: out of time" in report
    assert "* server, plain run: out of time" in report


def test_the_error_names_a_missing_model(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "has no model tiny" in done.stderr
