"""Loader: folders that are not read, and the reasons of refused versions."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import pytest

import tiny_models
from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import ManifestError
from latentserve_server.model_limits import Limits
from latentserve_server.repository.folders import scan_folders
from latentserve_server.repository.loader import Loader, refused
from latentserve_server.repository.model_version import ModelVersion, State

LOADER = Loader(
    lambda manifest: OnnxEngine(manifest, CPU, threads=1),
    limits=lambda name: Limits(max_batch_rows=4, queue_rows=16),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path / "exports", "tiny-gan", kind="gan")


def test_a_version_that_turns_into_a_link_out_of_the_root_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    assert LOADER.read("tiny-gan", 1, folder).state is State.LOADING
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    entry = LOADER.read("tiny-gan", 1, folder)
    assert entry.state is State.REFUSED
    assert "leads out of --exports" in entry.reason


def test_a_model_folder_that_leads_out_of_the_root_is_not_read(
    folder: Path, tmp_path: Path
) -> None:
    tiny_models.write_model(tmp_path / "elsewhere", "other", kind="gan")
    (folder.parents[1] / "other").symlink_to(tmp_path / "elsewhere" / "other")
    scan = scan_folders(folder.parents[1])
    assert [name for name, _, _ in scan.versions] == ["tiny-gan"]
    assert scan.passed_over == ["other is ignored: it is a link that leads out of --exports"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "Load model from {folder}/decode.onnx failed:/ort_src/core/graph/model.cc:182 x",
            "Load model from decode.onnx failed:model.cc:182 x",
        ),
        (
            "[Errno 2] No such file or directory: '{folder}/golden.npz'",
            "[Errno 2] No such file or directory: 'golden.npz'",
        ),
        ("/etc/ssl/key.pem and /root", "key.pem and /root"),
        ("expected n/a, [1/2], a ratio of 3/4/5", "expected n/a, [1/2], a ratio of 3/4/5"),
    ],
)
def test_reasons_name_files_but_no_folders_of_this_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    folder = tmp_path / "a folder" / "tiny-gan" / "1"
    error = ManifestError(text.format(folder=folder))
    with caplog.at_level(logging.ERROR):
        entry = refused(ModelVersion("tiny-gan", 1, State.LOADING), error, folder)
    assert entry.reason == reason
    assert str(error) in caplog.text  # the log has the full error


def test_the_folder_is_removed_from_reasons_by_all_its_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "by link").symlink_to(folder.parents[1])
    linked = tmp_path / "by link" / "tiny-gan" / "1"
    for name in (linked, folder.resolve()):
        error = ManifestError(f"{name}/decode.onnx is broken")
        entry = refused(ModelVersion("tiny-gan", 1, State.LOADING), error, linked)
        assert entry.reason == "decode.onnx is broken"


def test_errors_of_onnx_runtime_are_reported_without_paths(folder: Path) -> None:
    model = onnx.load(folder / "decode.onnx")
    model.graph.node[1].op_type = "Sigmoidish"
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    entry = LOADER.load(LOADER.read("tiny-gan", 1, folder))
    assert entry.state is State.REFUSED
    assert "Sigmoidish" in entry.reason
    assert str(folder.parents[1]) not in entry.reason
