"""Tests that training turns ONNX Runtime's telemetry off before it loads it."""

from __future__ import annotations

from pathlib import Path

from onnx_telemetry import OPEN_A_MODEL, files_written

import tiny_models


def test_nothing_is_kept_for_an_upload(tmp_path: Path) -> None:
    graph = tiny_models.write_model(tmp_path, "tiny") / "decode.onnx"
    program = OPEN_A_MODEL.format(package="latentserve_training", name="errors")
    assert files_written(tmp_path / "home", program, graph) == []
