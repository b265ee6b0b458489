"""Unsafe graphs are refused before ONNX Runtime opens the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tiny_models
from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import read_manifest

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A GAN has one graph, decode.onnx, with the tensors `decoder` and `shape`."""
    return tiny_models.write_model(tmp_path, "tiny-gan", kind="gan")


def rewrite(folder: Path, change: Change) -> None:
    model = onnx.load(folder / "decode.onnx")
    change(model)
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    return str(caught.value)


def external(tensor: TensorProto, location: str) -> None:
    """Store a tensor at an external location."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def node(**fields: Any) -> onnx.NodeProto:
    return helper.make_node("Steal", ["latents"], ["loot"], domain="evil", **fields)


def body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", [], [])


def inner(attribute: onnx.AttributeProto) -> onnx.NodeProto:
    made = helper.make_node("If", ["latents"], ["x"])
    made.attribute.append(attribute)
    return made


def training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.node.append(node())


CUSTOM: dict[str, Change] = {
    "a node": lambda model: model.graph.node.append(node()),
    "a node of a branch": lambda model: model.graph.node.append(
        inner(helper.make_attribute("then_branch", body(node())))
    ),
    "a node of a branch of a branch": lambda model: model.graph.node.append(
        inner(
            helper.make_attribute(
                "then_branch", body(inner(helper.make_attribute("else_branch", body(node()))))
            )
        )
    ),
    "a node of one of many graphs": lambda model: model.graph.node.append(
        inner(helper.make_attribute("graphs", [body(), body(node())]))
    ),
    "a node of a function": lambda model: model.functions.append(
        helper.make_function("local", "f", [], [], [node()], [])
    ),
    "a node of the training": training,
}


@pytest.mark.parametrize("where", CUSTOM)
def test_an_operator_of_a_custom_domain_is_refused_at_every_place(folder: Path, where: str) -> None:
    rewrite(folder, CUSTOM[where])
    assert "decode.onnx has a node of the operator 'Steal' of the domain 'evil'" in refusal(folder)


def test_operators_of_onnx_runtime_alone_are_refused_too(folder: Path) -> None:
    """One of them, EPContext, loads an engine from a file."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "com.microsoft"

    rewrite(folder, change)
    assert "of the domain 'com.microsoft'" in refusal(folder)


def test_the_domain_of_onnx_has_two_names(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "ai.onnx"

    rewrite(folder, change)
    OnnxEngine(read_manifest(folder), CPU, threads=1).check_golden()


def test_both_values_of_a_duplicate_graph_are_checked(folder: Path) -> None:
    """Protobuf merges them, so ONNX Runtime would see the nodes of both."""
    path = folder / "decode.onnx"
    second = onnx.ModelProto(graph=body(node()))
    path.write_bytes(path.read_bytes() + second.SerializeToString())
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    assert "'Steal'" in refusal(folder)


def test_both_values_of_a_duplicate_domain_are_checked(folder: Path) -> None:
    made = helper.make_node("Relu", ["latents"], ["y"], domain="evil").SerializeToString()
    made += onnx.NodeProto(domain="ai.onnx").SerializeToString()  # the last value is used
    graph = b"\x0a" + bytes([len(made)]) + made
    path = folder / "decode.onnx"
    path.write_bytes(path.read_bytes() + b"\x3a" + bytes([len(graph)]) + graph)
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    assert "'evil'" in refusal(folder)


LOCATIONS = [
    "../weights.bin",
    "../../../../../../etc/passwd",
    "/etc/passwd",
    "weights.bin",  # exists, but the manifest does not list it
    "./golden.npz",  # listed under another name
    "*/_ORT_MEM_ADDR_/*",  # ONNX Runtime's marker of an address in memory
    "",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_tensor_outside_of_the_listed_files_is_refused(folder: Path, location: str) -> None:
    rewrite(folder, lambda model: external(model.graph.initializer[0], location))
    (folder / "weights.bin").write_bytes(tiny_models.DECODER.tobytes())
    (folder.parent / "weights.bin").write_bytes(tiny_models.DECODER.tobytes())
    assert f"decode.onnx has a tensor outside of it, in {location!r}" in refusal(folder)


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(elsewhere())


def elsewhere() -> TensorProto:
    tensor = TensorProto()
    external(tensor, "../x")
    return tensor


TENSORS: dict[str, Change] = {
    "an attribute": lambda model: model.graph.node.append(
        inner(helper.make_attribute("value", elsewhere()))
    ),
    "one of many": lambda model: model.graph.node.append(
        inner(helper.make_attribute("values", [TensorProto(), elsewhere()]))
    ),
    "a branch": lambda model: model.graph.node.append(
        inner(
            helper.make_attribute("then_branch", helper.make_graph([], "b", [], [], [elsewhere()]))
        )
    ),
    "a sparse one": sparse,
    "a default of a function": lambda model: model.functions.append(
        onnx.FunctionProto(attribute_proto=[helper.make_attribute("value", elsewhere())])
    ),
    "only the flag": lambda model: setattr(
        model.graph.initializer[0], "data_location", TensorProto.EXTERNAL
    ),
}


@pytest.mark.parametrize("where", TENSORS)
def test_an_external_tensor_is_refused_at_every_place(folder: Path, where: str) -> None:
    rewrite(folder, TENSORS[where])
    assert "decode.onnx has a tensor outside of it" in refusal(folder)


def test_a_tensor_in_a_file_that_the_manifest_lists_is_read(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(tiny_models.DECODER.tobytes())
    rewrite(folder, lambda model: external(model.graph.initializer[0], "weights.bin"))
    engine = OnnxEngine(read_manifest(folder), CPU, threads=1)
    latents = np.ones((2, tiny_models.DIM), np.float32)
    (images,) = engine.run("decode", [latents])
    np.testing.assert_allclose(images, tiny_models.decode(latents), atol=1e-6)


def test_options_for_the_session_are_refused(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="ort_config", value="{}")

    rewrite(folder, change)
    assert "sets options of ONNX Runtime" in refusal(folder)


def test_other_metadata_is_allowed(folder: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="author", value="ort_config")

    rewrite(folder, change)
    read_manifest(folder)


def test_another_format_is_refused_by_its_name(folder: Path) -> None:
    (folder / "decode.onnx").rename(folder / "decode.ort")
    document = tiny_models.read_manifest(folder)
    for spec in document["operations"].values():
        spec["file"] = "decode.ort"
    tiny_models.write_manifest(folder, document)
    assert "decode.ort is not a graph file, expected the suffix .onnx" in refusal(folder)


def test_a_file_that_cannot_be_read_as_a_model_is_refused(folder: Path) -> None:
    (folder / "decode.onnx").write_bytes(b"\x3a\xff\xff")
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    assert "decode.onnx cannot be loaded: it is not an ONNX model" in refusal(folder)


def test_a_graph_that_is_nested_too_deep_is_refused(folder: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        size = [len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14]
        return bytes([number << 3 | 2, *size]) + content

    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute with a graph
    (folder / "decode.onnx").write_bytes(field(7, graph))
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    assert "it is not an ONNX model" in refusal(folder)
