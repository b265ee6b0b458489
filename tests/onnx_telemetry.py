"""Probe that finds the files ONNX Runtime's telemetry leaves in a home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OPEN_A_MODEL = """
import sys
from pathlib import Path
from {package} import {name}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def files_written(home: Path, program: str, graph: Path, **environment: str) -> list[str]:
    """What a process leaves in an empty home that opens a graph with onnxruntime."""
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
