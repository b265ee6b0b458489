"""Short run of the fuzzer from its seeds, which must find no failure."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("fuzz_requests.py")
SECONDS = 5

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None,
        reason="atheris is not installed: pip install --group fuzz",
    ),
]


# libFuzzer measures at least the memory of the process that started it, because Linux keeps the
# maximum resident size over exec.
MEMORY_FLAG = "-rss_limit_mb=4096"


def fuzz(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TARGET), MEMORY_FLAG, *flags]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_short_run_finds_no_failure(tmp_path: Path) -> None:
    run = fuzz(tmp_path, f"-max_total_time={SECONDS}", "-print_final_stats=1")
    assert run.returncode == 0, run.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", run.stderr)
    assert runs
    assert int(runs[1]) > 500
    assert list(tmp_path.iterdir()) == []  # no crash-..., no slow-unit-...


def test_one_input_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"\x01\xff\xff")
    run = fuzz(tmp_path, "input")
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Executed input" in run.stderr
