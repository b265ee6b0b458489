"""benchmarks/RESULTS.md is rendered from results.json, and its plots exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_report_is_rendered_from_the_committed_results() -> None:
    results, report = BENCHMARKS / "results.json", BENCHMARKS / "RESULTS.md"
    if not results.exists() and not report.exists():
        pytest.skip("NO BENCHMARK RESULTS ARE COMMITTED: run `make bench` on an idle machine")
    assert results.exists(), "RESULTS.md exists without results.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--from", str(results), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
