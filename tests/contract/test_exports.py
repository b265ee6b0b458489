"""The shipped models conform to the exports contract, and the server loads them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from jsonschema import Draft202012Validator

from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.manifest.reader import read_manifest
from latentserve_server.sampling.prior import check_golden_samples, read_prior

ROOT = Path(__file__).resolve().parents[2]
EXPORTS = ROOT / "exports"
SHIPPED = sorted(path.parent for path in EXPORTS.glob("*/*/manifest.json"))
MAX_FOLDER_BYTES = 3 * 10**6
MAX_BYTES = 20 * 10**6  # of all exports together

RANDOM_OPERATORS = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
# Paths of the machine that exported: system folders, drives, stack traces of Python.
MACHINE_PATH = re.compile(
    r"/(?:root|home|Users|usr|opt|tmp|var|mnt|srv|private)/|\b[A-Z]:[\\/]|\.py\b|site-packages"
)

each_export = pytest.mark.parametrize(
    "folder", SHIPPED, ids=[str(folder.relative_to(EXPORTS)) for folder in SHIPPED]
)


def document_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return document


def graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield the graph, the graphs inside its nodes, and the functions of a model."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def operators_of(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for graph in graphs_of(model) for node in graph.node}


def texts_of(model: onnx.ModelProto) -> Iterator[str]:
    """Yield every text of a model that could contain a path."""

    def metadata(holder: Any) -> Iterable[str]:
        return (text for entry in holder.metadata_props for text in (entry.key, entry.value))

    yield from (model.doc_string, model.producer_name, model.domain, *metadata(model))
    for graph in graphs_of(model):
        yield from (graph.name, graph.doc_string, *metadata(graph))
        for node in graph.node:
            yield from (node.name, node.doc_string, *node.input, *node.output, *metadata(node))
            for attribute in node.attribute:
                yield attribute.doc_string
                yield attribute.s.decode("utf-8", "replace")
                yield from (text.decode("utf-8", "replace") for text in attribute.strings)
        if isinstance(graph, onnx.GraphProto):
            for tensor in graph.initializer:
                yield from (tensor.name, tensor.doc_string, *metadata(tensor))
            for value in (*graph.input, *graph.output, *graph.value_info):
                yield from (value.name, value.doc_string, *metadata(value))


def models_of(folder: Path) -> dict[str, onnx.ModelProto]:
    files = {spec["file"] for spec in document_of(folder)["operations"].values()}
    return {file: onnx.load(folder / file, load_external_data=False) for file in sorted(files)}


def test_at_least_one_model_is_shipped() -> None:
    assert SHIPPED, "exports/ has no <name>/<version>/manifest.json"


@each_export
def test_the_manifest_conforms_to_the_schema(folder: Path) -> None:
    schema = json.loads((EXPORTS / "manifest.schema.json").read_text("utf-8"))
    problems = [
        f"{error.json_path}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(document_of(folder))
    ]
    assert problems == []


@each_export
def test_every_file_is_listed_with_its_size_and_sha256(folder: Path) -> None:
    found = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    assert document_of(folder)["files"] == found


@each_export
def test_the_folder_is_small_enough_for_git(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) < MAX_FOLDER_BYTES


def test_all_exports_together_are_small_enough_for_git() -> None:
    sizes = [path.stat().st_size for path in EXPORTS.rglob("*") if path.is_file()]
    assert sum(sizes) < MAX_BYTES


@each_export
def test_no_graph_generates_random_numbers(folder: Path) -> None:
    for file, model in models_of(folder).items():
        operators = operators_of(model)
        assert operators
        assert not operators & RANDOM_OPERATORS, file
        assert "Dropout" not in operators, f"{file} was not exported in evaluation mode"


@each_export
def test_no_graph_and_no_manifest_names_a_path_of_the_machine_that_exported(folder: Path) -> None:
    for file, model in models_of(folder).items():
        assert [text for text in texts_of(model) if MACHINE_PATH.search(text)] == [], file
    text = (folder / "manifest.json").read_text("utf-8")
    assert not re.search(r"/(?:root|home|Users|tmp)/", text)


@each_export
def test_every_graph_is_one_valid_file_with_a_dynamic_batch_of_float32(folder: Path) -> None:
    for file, model in models_of(folder).items():
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}, file
        for tensor in model.graph.initializer:
            assert tensor.data_location != onnx.TensorProto.EXTERNAL, f"{file}: {tensor.name}"
        for value in (*model.graph.input, *model.graph.output):
            kind = value.type.tensor_type
            assert kind.elem_type == onnx.TensorProto.FLOAT, f"{file}: {value.name}"
            assert kind.shape.dim[0].dim_param == "batch", f"{file}: {value.name}"
            assert all(size.HasField("dim_value") for size in kind.shape.dim[1:]), file


@each_export
def test_every_metric_says_how_it_was_computed_and_at_least_one_has_a_baseline(
    folder: Path,
) -> None:
    metrics = document_of(folder)["metrics"]
    assert metrics
    assert any(metric["baseline"] is not None for metric in metrics.values())


@each_export
def test_the_server_loads_the_model_and_reproduces_its_golden_outputs(folder: Path) -> None:
    manifest = read_manifest(folder)
    engine = OnnxEngine(manifest, CPU, threads=1)
    engine.warm_up((1, 3))
    assert check_golden_samples(manifest, read_prior(manifest)) <= manifest.golden.tolerance
    assert engine.check_golden() <= manifest.golden.tolerance


def test_these_checks_find_random_operators_and_paths_at_any_depth() -> None:
    helper = onnx.helper
    inner = helper.make_graph(
        [helper.make_node("RandomNormal", [], ["noise"], shape=[1], doc_string="|tmp|a.py")],
        "inner",
        [],
        [helper.make_tensor_value_info("noise", onnx.TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "outer", [], [])
    model = helper.make_model(graph)
    assert operators_of(model) & RANDOM_OPERATORS == {"RandomNormal"}
    assert any(MACHINE_PATH.search(text) for text in texts_of(model))
