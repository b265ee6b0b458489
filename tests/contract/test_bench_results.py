"""benchmarks/RESULTS.md is what its JSON gives, and has its plots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_report_is_in_step_with_its_figures() -> None:
    figures, report = BENCHMARKS / "results.json", BENCHMARKS / "RESULTS.md"
    if not figures.exists() and not report.exists():
        pytest.skip("NO BENCHMARK RESULTS ARE COMMITTED: run `make bench` on a quiet machine")
    assert figures.exists(), "RESULTS.md has no results.json beside it"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--from", str(figures), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
