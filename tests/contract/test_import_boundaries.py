"""Packages that a module loads, checked in a new process; import-linter checks the layers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "latentserve_server"

# Imports all modules of a package except __main__, or one module, and prints the loaded packages.
PROBE = """
import importlib, json, pkgutil, sys, warnings
warnings.simplefilter("ignore")
name, whole = sys.argv[1], sys.argv[2] == "whole"
module = importlib.import_module(name)
names = [name]
if whole:
    for found in pkgutil.walk_packages(module.__path__, name + "."):
        if not found.name.endswith(".__main__"):
            importlib.import_module(found.name)
            names.append(found.name)
print(json.dumps([names, sorted({key.partition(".")[0] for key in sys.modules})]))
"""


def loaded_by(name: str, *, whole: bool) -> tuple[list[str], set[str]]:
    """Return the imported modules, and the top-level packages that they loaded."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, name, "whole" if whole else "alone"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    imported, loaded = json.loads(result.stdout.splitlines()[-1])
    return imported, set(loaded)


def test_the_server_loads_neither_torch_nor_onnx() -> None:
    imported, loaded = loaded_by("latentserve_server", whole=True)
    assert {"latentserve_server.app", "latentserve_server.engine.onnx"} <= set(imported)
    assert {"grpc", "onnxruntime", "numpy"} <= loaded  # the probe detects loaded packages
    assert not loaded & {"torch", "torchvision", "onnx", "onnxscript", "latentserve_training"}


def test_training_loads_no_grpc() -> None:
    imported, loaded = loaded_by("latentserve_training", whole=True)
    assert "latentserve_training.export.publish" in imported
    assert "torch" in loaded
    assert not loaded & {"grpc", "latentserve", "latentserve_server", "latentserve_client"}


def test_the_client_loads_no_server_and_no_runtime() -> None:
    imported, loaded = loaded_by("latentserve_client", whole=True)
    assert len(imported) > 1
    assert "grpc" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "latentserve_server"}


def test_the_batcher_loads_neither_grpc_nor_onnxruntime() -> None:
    _, loaded = loaded_by("latentserve_server.batching.batcher", whole=False)
    assert "numpy" in loaded
    assert not loaded & {"grpc", "onnxruntime", "google", "latentserve"}


@pytest.mark.parametrize(
    "name", ["services.generative", "services.models", "codec.tensors", "status"]
)
def test_modules_independent_of_the_transport_load_no_grpc(name: str) -> None:
    """The generated service stubs must not be imported, because they import grpc."""
    _, loaded = loaded_by(f"latentserve_server.{name}", whole=False)
    assert "grpc" not in loaded


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports at any depth; `from a import b` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def violations(path: Path, forbidden: tuple[str, ...]) -> set[str]:
    return {name for name in imports_of(path) for package in forbidden if belongs(name, package)}


def modules() -> list[Path]:
    paths = sorted(SERVER.rglob("*.py"))
    assert len(paths) > 80
    return paths


def test_only_the_engine_imports_onnx_runtime() -> None:
    importing = {path for path in modules() if violations(path, ("onnxruntime",))}
    assert {path.relative_to(SERVER).as_posix() for path in importing} == {
        "engine/session.py",
        "engine/io_binding.py",
        "engine/device.py",
    }


def test_only_the_codec_converts_bytes_to_arrays_and_files_to_pixels() -> None:
    importing = {path for path in modules() if violations(path, ("PIL",))}
    assert {path.relative_to(SERVER).parts[0] for path in importing} == {"codec"}
    reading = {path for path in modules() if "frombuffer" in path.read_text("utf-8")}
    assert {path.relative_to(SERVER).as_posix() for path in reading} == {"codec/tensors.py"}


def test_the_unit_tests_of_the_server_need_no_training() -> None:
    """The modules of tests/ that they import are included, at any depth."""
    shared = {path.stem: path for path in (ROOT / "tests").glob("*.py")}
    pending = sorted((ROOT / "tests" / "unit" / "server").rglob("*.py"))
    assert len(pending) > 50
    read: set[Path] = set()
    while pending:
        path = pending.pop()
        if path not in read:
            read.add(path)
            assert "latentserve_training" not in path.read_text("utf-8"), path.name
            pending += [shared[name] for name in imports_of(path) if name in shared]
    assert shared["tiny_models"] in read


def test_imports_inside_functions_are_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from latentserve.v1 import tensor_pb2\n    import grpc.aio\n")
    assert violations(path, ("grpc", "latentserve")) == {
        "grpc.aio",
        "latentserve.v1",
        "latentserve.v1.tensor_pb2",
    }
