"""Tests that hostile models cannot make the server open files outside the model folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

import tiny_models
from served import BEFORE_ANY_TRANSPORT

LOADER = Path(__file__).resolve().parents[1] / "hostile_folders.py"
LIMIT_S = 60.0


class Folders:
    """A root with a valid model, and a folder outside with files that hostile models refer to."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.outside, self.warm = (
            tmp_path / name for name in ("exports", "outside", "warm")
        )
        self.write("good")
        tiny_models.write_model(self.warm, "good", kind="gan")
        tiny_models.write_model(self.outside, "whole-model", kind="gan")
        tiny_models.write_model(self.outside, "one-version", kind="gan")
        (self.outside / "weights.bin").write_bytes(tiny_models.DECODER.tobytes())
        (self.outside / "library.so").write_bytes(b"\x7fELF")

    def write(self, name: str) -> Path:
        return tiny_models.write_model(self.root, name, kind="gan")


def seal(folder: Path) -> None:
    """Update the manifest's checksums, so that only the tested property is wrong."""
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))


def external(folder: Path, location: str) -> None:
    model = onnx.load(folder / "decode.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    seal(folder)


def link(path: Path, target: Path) -> None:
    """Replace a file by a link to its copy outside."""
    shutil.copy(path, target)
    path.unlink()
    path.symlink_to(target)


def parent(at: Folders, folder: Path) -> None:
    external(folder, "../../../outside/weights.bin")


def absolute(at: Folders, folder: Path) -> None:
    external(folder, str(at.outside / "weights.bin"))


def linked_weights(at: Folders, folder: Path) -> None:
    (folder / "weights.bin").symlink_to(at.outside / "weights.bin")
    external(folder, "weights.bin")


def linked_graph(at: Folders, folder: Path) -> None:
    link(folder / "decode.onnx", at.outside / "decode.onnx")


def linked_golden(at: Folders, folder: Path) -> None:
    link(folder / "golden.npz", at.outside / "golden.npz")


def linked_manifest(at: Folders, folder: Path) -> None:
    link(folder / "manifest.json", at.outside / "manifest.json")


def linked_version(at: Folders, folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(at.outside / "one-version" / "1")


def linked_model(at: Folders, folder: Path) -> None:
    shutil.rmtree(folder.parent)
    folder.parent.symlink_to(at.outside / "whole-model")


def pipe(at: Folders, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def device(at: Folders, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")


def library(at: Folders, folder: Path) -> None:
    model = onnx.load(folder / "decode.onnx")
    model.graph.node[1].domain = "evil"
    model.opset_import.add(domain="evil", version=1)
    model.metadata_props.add(key="custom_ops_library", value=str(at.outside / "library.so"))
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    (folder / "library.so").write_bytes(b"\x7fELF")
    seal(folder)


# name -> (modification, reason of the refusal; "" if the model is not listed)
HOSTILE: dict[str, tuple[Callable[[Folders, Path], None], str]] = {
    "parent": (parent, "has a tensor outside of it, in '../../../outside/weights.bin'"),
    "absolute": (absolute, "has a tensor outside of it, in '"),
    "linked-weights": (linked_weights, "weights.bin leads out of the model's folder"),
    "linked-graph": (linked_graph, "decode.onnx leads out of the model's folder"),
    "linked-golden": (linked_golden, "golden.npz leads out of the model's folder"),
    "linked-manifest": (linked_manifest, "manifest.json leads out of the model's folder"),
    "linked-version": (linked_version, "is a link that leads out of --exports"),
    "linked-model": (linked_model, ""),
    "pipe": (pipe, "manifest.json cannot be read: it is not a regular file"),
    "device": (device, "manifest.json leads out of the model's folder"),
    "library": (library, "the operator 'Sigmoid' of the domain 'evil'"),
}


@pytest.fixture
def at(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def load(at: Folders) -> dict[str, Any]:
    command = [sys.executable, str(LOADER), str(at.root), str(at.outside), str(at.warm)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@BEFORE_ANY_TRANSPORT
def test_nothing_outside_is_opened_and_every_hostile_model_is_refused(at: Folders) -> None:
    for name, (spoil, _) in HOSTILE.items():
        spoil(at, at.write(name))
    found = load(at)
    assert found["process"] == [str(at.root / "good/1/decode.onnx")]  # proves that inotify works
    # Python opens, lists and imports only files in the root.
    paths = {event.partition(" ")[2] for event in found["python"]}
    assert str(at.root / "good/1/manifest.json") in paths
    assert {path for path in paths if not Path(path).is_relative_to(at.root)} == set()
    reasons = found["versions"]
    assert reasons.pop("good/1") == "ready: "
    for name, (_, reason) in HOSTILE.items():
        if reason:
            assert reason in reasons.pop(f"{name}/1")
    assert reasons == {}


@BEFORE_ANY_TRANSPORT
def test_links_inside_the_root_are_followed(at: Folders) -> None:
    """Orchestrators share folders, or swap them, with links."""
    store = at.root / ".store"
    folder = at.write("stored")
    shutil.move(folder, store)
    folder.symlink_to(store)
    linked_root = at.root.parent / "by-link"
    linked_root.symlink_to(at.root)
    at.root = linked_root
    assert load(at)["versions"] == {"good/1": "ready: ", "stored/1": "ready: "}
