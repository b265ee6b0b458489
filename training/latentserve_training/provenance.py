"""Provenance of a model: library versions, source revision and machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "scikit-learn")
UNKNOWN = "unknown"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect a model or its export."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version()} | versions


def source_revision() -> str:
    """The commit of the sources of this package, with ``-dirty`` if they differ from it.

    "unknown" where the package is installed and not checked out: a repository that contains the
    virtual environment is not the repository of these files.
    """
    package = Path(__file__).parent
    tracked = _git(package, "ls-files", "--error-unmatch", Path(__file__).name)
    commit = _git(package, "rev-parse", "HEAD")
    if tracked is None or commit is None:
        return UNKNOWN
    return f"{commit}-dirty" if _git(package, "status", "--porcelain", ".") else commit


def machine(device: str = "cpu") -> dict[str, str | int]:
    """The hardware that measured times depend on.

    Args:
        device: ``cuda`` to include the name of the GPU.
    """
    described: dict[str, str | int] = {"cpu": cpu_name(), "cores": os.cpu_count() or 1}
    if device == "cuda":
        import torch

        described["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else UNKNOWN
    return described


def cpu_name() -> str:
    """The model name of the processor, as reported by the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine() or UNKNOWN


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()
