"""The .proto files pass the linter and are commented; the Python stubs are generated from them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Load proto/generate.py, a script outside any package."""
    spec = importlib.util.spec_from_file_location("latentserve_generate", PROTO / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buf from the environment of this Python (package buf-bin)."""
    program = shutil.which("buf", path=str(Path(sys.executable).parent))
    assert program is not None, "buf is not installed in this environment: pip install --group lint"
    return subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_committed_stubs_are_what_the_proto_files_give(generate: ModuleType) -> None:
    assert generate.differing() == [], "run `make proto`"


def test_the_check_of_the_stubs_detects_a_changed_proto_file(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test above could pass without comparing anything."""
    for root, package in generate.PACKAGES.items():
        shutil.copytree(ROOT / root / package, tmp_path / root / package)
    monkeypatch.setattr(generate, "REPOSITORY", tmp_path)
    assert generate.differing() == []
    folder = tmp_path / "proto/latentserve/v1"
    changed = folder / "tensor.proto"
    text = changed.read_text("utf-8")
    changed.write_text(text.replace("int64 queue_ns = 1;", "int64 waiting_ns = 1;"), "utf-8")
    stale = ["proto/latentserve/v1/tensor_pb2.py", "proto/latentserve/v1/tensor_pb2.pyi"]
    assert generate.differing() == stale
    (folder / "left_over_pb2.py").touch()
    assert "proto/latentserve/v1/left_over_pb2.py" in generate.differing()


def test_lint_installs_the_version_of_the_generator(generate: ModuleType) -> None:
    pinned = re.search(r'"grpcio-tools==([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned is not None
    assert pinned[1] == generate.TOOLS_VERSION


def test_buf_lint_is_clean() -> None:
    result = buf("lint", "proto")
    assert result.returncode == 0, result.stdout + result.stderr


def test_buf_format_is_clean() -> None:
    result = buf("format", "--diff", "--exit-code", "proto")
    assert result.returncode == 0, result.stdout + result.stderr


def test_lint_requires_comments_without_exceptions() -> None:
    config = (PROTO / "buf.yaml").read_text("utf-8")
    rules = re.search(r"^lint:\n  use:\n((?:    - \w+\n)+)", config, re.MULTILINE)
    assert rules is not None
    assert set(rules[1].split()) - {"-"} == {"STANDARD", "COMMENTS"}
    assert not re.search(r"^\s*(except|ignore|ignore_only)\s*:", config, re.MULTILINE)
    for path in PROTO.rglob("*.proto"):
        assert "buf:lint:ignore" not in path.read_text("utf-8"), path


def test_the_folder_of_a_proto_file_is_its_package() -> None:
    paths = list((PROTO / "latentserve").rglob("*.proto"))
    assert len(paths) >= 3
    for path in paths:
        package = ".".join(path.parent.relative_to(PROTO).parts)
        assert f"\npackage {package};\n" in path.read_text("utf-8")
