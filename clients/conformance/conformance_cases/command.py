"""Command line of the generator: writes the cases, or compares the committed ones."""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from conformance_cases import bad_requests, descriptions, good_calls, sampling, server_states
from conformance_cases.case_files import Json
from conformance_cases.exported_models import read_exports
from conformance_cases.suite import Suite
from latentserve_client import digits

_HERE = Path(__file__).resolve().parents[1]
CASES = _HERE / "cases"
EXPORTS = _HERE.parents[1] / "exports"

GROUPS = (
    *("encode", "decode", "reconstruct", "denoise", "forms", "large"),
    *("sample", "stream", "errors", "deadlines", "retries", "models", "health"),
)
_DTYPES = {".f32": "<f4", ".f16": "<f2", ".u8": "u1"}


def compute(exports: Path = EXPORTS) -> tuple[dict[str, Json], dict[str, bytes]]:
    """Return the JSON documents by file name, and the binary files by path."""
    suite = Suite(read_exports(exports), digits.bundled().images)
    for part in (good_calls, sampling, bad_requests, server_states, descriptions):
        part.add(suite)
    if set(suite.groups) != set(GROUPS):
        raise ValueError(f"the groups are {sorted(suite.groups)}, expected {sorted(GROUPS)}")
    documents: dict[str, Json] = {
        f"{group}.json": {"group": group, "cases": suite.groups[group]} for group in GROUPS
    }
    documents["index.json"] = {"format": 1, "groups": [f"{group}.json" for group in GROUPS]}
    return documents, suite.files.contents


def text(document: Json) -> str:
    """Return the text of a document, with one case per line for readable diffs."""
    if "cases" not in document:
        return json.dumps(document, indent=2) + "\n"
    cases = ",\n".join(json.dumps(case) for case in document["cases"])
    return f'{{"group": {json.dumps(document["group"])}, "cases": [\n{cases}\n]}}\n'


def write(folder: Path) -> None:
    """Replace the cases in a folder."""
    documents, files = compute()
    shutil.rmtree(folder / "data", ignore_errors=True)
    for old in folder.glob("*.json"):
        old.unlink()
    (folder / "data").mkdir(parents=True)
    for name, document in documents.items():
        (folder / name).write_text(text(document), "utf-8")
    for path, data in files.items():
        (folder / path).write_bytes(data)
    size = sum(len(data) for data in files.values())
    count = sum(len(document.get("cases", ())) for document in documents.values())
    print(f"{count} cases, {len(files)} files, {size / 1e3:.0f} kB")


def differences(folder: Path) -> list[str]:
    """Return the differences between a folder and the computed cases, within the tolerances."""
    documents, files = compute()
    committed = {path.name for path in folder.glob("*.json")}
    found = [f"{name} is not generated" for name in committed - documents.keys()]
    for name, document in documents.items():
        if name not in committed:
            found.append(f"{name} is missing")
        elif json.loads((folder / name).read_text("utf-8")) != json.loads(text(document)):
            found.append(f"{name} differs")
    have = {path.relative_to(folder).as_posix() for path in (folder / "data").iterdir()}
    found += [f"{path} is not generated" for path in have - files.keys()]
    tolerances = _tolerances(documents)
    for path, data in files.items():
        if path not in have:
            found.append(f"{path} is missing")
        elif not _alike(path, data, (folder / path).read_bytes(), tolerances.get(path)):
            found.append(f"{path} differs")
    return found


def _tolerances(documents: dict[str, Json]) -> dict[str, tuple[float, float]]:
    """Return atol and rtol of every file with expected values."""
    found: dict[str, tuple[float, float]] = {}

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if "atol" in value:
                found[value["data"]["file"]] = (value["atol"], value["rtol"])
            for inner in value.values():
                visit(inner)
        elif isinstance(value, list):
            for inner in value:
                visit(inner)

    visit(documents)
    return found


def _alike(path: str, data: bytes, other: bytes, tolerance: tuple[float, float] | None) -> bool:
    suffix = Path(path).suffix
    if data == other:
        return True
    if suffix in (".png", ".jpg") and "corrupt" not in path and "cut" not in path:
        return _same_pixels(data, other)
    if tolerance is None or suffix not in _DTYPES or len(data) != len(other):
        return False
    values, others = (
        np.frombuffer(raw, _DTYPES[suffix]).astype(np.float64) for raw in (data, other)
    )
    atol, rtol = tolerance
    return bool(np.all(np.abs(values - others) <= atol + rtol * np.abs(values)))


def _same_pixels(data: bytes, other: bytes) -> bool:
    """Whether the pixels of two image files agree; encoders differ between versions."""
    first, second = (
        np.asarray(PIL.Image.open(io.BytesIO(raw))).astype(np.int16) for raw in (data, other)
    )
    return first.shape == second.shape and bool(np.all(np.abs(first - second) <= 1))


def main() -> int:
    """Write the cases, or with --check print the differences."""
    parser = argparse.ArgumentParser(prog="generate.py", description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--check", action="store_true", help="compare without writing")
    arguments = parser.parse_args()
    if not arguments.check:
        write(arguments.cases)
        return 0
    found = differences(arguments.cases)
    print("\n".join(found) or "the cases are up to date")
    return int(bool(found))
