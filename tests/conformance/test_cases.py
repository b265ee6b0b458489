"""Tests of the committed conformance cases: schema, coverage, and agreement with the generator."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import reference_draw
from conformance_cases import suite
from conformance_cases.command import CASES, GROUPS, differences
from conformance_server import servers

SCHEMA = json.loads((CASES.parent / "case.schema.json").read_text("utf-8"))
DOCUMENTS: dict[str, Any] = {
    group: json.loads((CASES / f"{group}.json").read_text("utf-8")) for group in GROUPS
}
ALL = [case for document in DOCUMENTS.values() for case in document["cases"]]


def files_in(value: Any) -> set[str]:
    """Return every path below data/ in a document."""
    if isinstance(value, dict):
        return {path for inner in value.values() for path in files_in(inner)}
    if isinstance(value, list):
        return {path for inner in value for path in files_in(inner)}
    return {value} if isinstance(value, str) and value.startswith("data/") else set()


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_matches_the_schema(group: str) -> None:
    jsonschema.validate(DOCUMENTS[group], SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no group"},
        {"server": "elsewhere"},
        {"through": "bytes"},
        {"surprise": 1},
        {"expect": {}},
        {"expect": {"error": {"code": "NOT_FOUND", "reason": "MODEL_NOT_FOUND"}}},
        {"request": {"seed": 7}},
    ],
)
def test_the_schema_refuses_invalid_cases(change: dict[str, Any]) -> None:
    good = DOCUMENTS["sample"]["cases"][0]
    jsonschema.validate({"group": "sample", "cases": [good]}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"group": "sample", "cases": [good | change]}, SCHEMA)


def test_every_case_has_the_group_of_its_file_and_a_unique_name() -> None:
    index = json.loads((CASES / "index.json").read_text("utf-8"))
    assert index["groups"] == [f"{group}.json" for group in GROUPS]
    for group, document in DOCUMENTS.items():
        assert document["group"] == group
        assert all(case["name"].startswith(f"{group}/") for case in document["cases"])
    assert len({case["name"] for case in ALL}) == len(ALL)


def test_every_data_file_exists_and_is_used_and_all_are_small() -> None:
    present = {f"data/{path.name}": path.stat().st_size for path in (CASES / "data").iterdir()}
    assert files_in(ALL) == set(present)
    assert sum(present.values()) < 1_000_000


def test_every_documented_error_has_a_case() -> None:
    errors = [case["expect"]["error"] for case in ALL if "error" in case["expect"]]
    found = {(error.get("code"), error.get("reason")) for error in errors}
    assert found >= {
        ("INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("NOT_FOUND", "MODEL_NOT_FOUND"),
        ("FAILED_PRECONDITION", "OPERATION_NOT_SUPPORTED"),
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        ("RESOURCE_EXHAUSTED", None),
        ("DEADLINE_EXCEEDED", None),
        ("UNAVAILABLE", "NOT_READY"),
        ("UNIMPLEMENTED", None),
        ("UNAUTHENTICATED", "TOKEN_REQUIRED"),
        ("INTERNAL", "ENGINE_FAILURE"),
    }


def test_every_rpc_has_a_successful_case() -> None:
    successful = {case["rpc"].rpartition("/")[2] for case in ALL if "ok" in case["expect"]}
    assert successful == {
        *("Encode", "Decode", "Reconstruct", "Denoise", "Sample", "SampleStream"),
        *("ListModels", "GetModel", "ReloadModels", "Check", "Watch"),
    }


def test_the_cases_and_the_servers_have_the_same_limits() -> None:
    for name in ("MAX_REQUEST_ROWS", "MAX_STREAM_ROWS", "MAX_BATCH_ROWS", "TOKEN"):
        assert getattr(suite, name) == getattr(servers, name)
    assert suite.DEFAULT_MODEL == servers.MODEL
    assert set(SCHEMA["$defs"]["case"]["properties"]["server"]["enum"]) == set(servers.ROLES)


@pytest.mark.parametrize("package", ["conformance_cases", "conformance_runner"])
def test_cases_and_runner_do_not_import_the_server(package: str) -> None:
    sources = [*(CASES.parent / package).glob("*.py"), Path(reference_draw.__file__)]
    assert len(sources) > 3
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("latentserve_server") for name in names), source


def test_the_committed_cases_match_the_generator() -> None:
    assert differences(CASES) == [], "run clients/conformance/generate.py"


def test_differences_from_the_generator_are_found(tmp_path: Path) -> None:
    copy = tmp_path / "cases"
    shutil.copytree(CASES, copy)

    def shift(name: str, by: float) -> None:
        values = np.fromfile(copy / "data" / name, "<f4")
        values[5] += np.float32(by)
        values.tofile(copy / "data" / name)

    shift("decode-mnist-vae-images.f32", 5e-5)  # within the tolerance
    shift("decode-mnist-gan-images.f32", 5e-4)
    shift("sample-seed-0-latents.f32", 1e-4)
    shift("forms-float32.f32", 1e-6)  # an input has no tolerance
    (copy / "data" / "digit-5.png").unlink()
    (copy / "data" / "left-over.u8").write_bytes(b"")
    models = (copy / "models.json").read_text("utf-8")
    (copy / "models.json").write_text(models.replace('"LOADING"', '"READY"'), "utf-8")
    assert sorted(differences(copy)) == [
        "data/decode-mnist-gan-images.f32 differs",
        "data/digit-5.png is missing",
        "data/forms-float32.f32 differs",
        "data/left-over.u8 is not generated",
        "data/sample-seed-0-latents.f32 differs",
        "models.json differs",
    ]
