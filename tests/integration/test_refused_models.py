"""Tests of the reasons of refused models, which must not reveal server paths.

ONNX Runtime, numpy and the operating system put absolute paths and source lines in their messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from refusals import refused, secrets_of
from served import ref, served

TIMEOUT_S = 20.0


def seal(folder: Path) -> None:
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))


def graph(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        model = onnx.load(folder / "decode.onnx")
        change(model)
        (folder / "decode.onnx").write_bytes(model.SerializeToString())
        seal(folder)

    return spoil


def file(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)
        seal(folder)

    return spoil


def manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        document = tiny_models.read_manifest(folder)
        change(document)
        tiny_models.write_manifest(folder, document, list_files=False)

    return spoil


def no_golden(folder: Path) -> None:
    """Replace the arrays by others than the manifest names."""
    np.savez(folder / "golden.npz", other=np.zeros(3))
    seal(folder)


def reshaped(model: onnx.ModelProto) -> None:
    """Reshape to a fixed number of rows, against the manifest."""
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "shape")
    shape.CopyFrom(helper.make_tensor("shape", onnx.TensorProto.INT64, [4], [7, 1, 4, 4]))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Sigmoidish"


# name -> (modification of a model, pattern of the reason)
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown-operator": (graph(unknown_operator), r"decode\.onnx cannot be loaded: .*Sigmoidish"),
    "no-graph": (file("decode.onnx", b"\x00rubbish"), r"decode\.onnx cannot be loaded"),
    "empty-graph": (file("decode.onnx", b""), r"decode\.onnx"),
    "fixed-batch": (graph(reshaped), r"decode: images in decode\.onnx is tensor\(float\) \[7, "),
    "no-inputs": (
        graph(lambda model: model.graph.ClearField("input")),
        r"decode",
    ),
    "missing-file": (
        lambda folder: (folder / "decode.onnx").unlink(),
        r"decode\.onnx cannot be read: No such file",
    ),
    "unreadable-golden": (file("golden.npz", b"PK\x03\x04"), r"golden\.npz is not usable"),
    "other-golden": (no_golden, r"golden\.npz is not usable"),
    "no-json": (
        lambda folder: (folder / "manifest.json").write_text("{") and None,
        r"manifest\.json is not JSON",
    ),
    "no-manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        r"manifest\.json cannot be read",
    ),
    "schema": (
        manifest(lambda document: document.pop("golden")),
        r"manifest\.json: \$: 'golden' is a required property",
    ),
    "digest": (
        manifest(lambda document: document["files"]["decode.onnx"].update(sha256="0" * 64)),
        r"decode\.onnx has SHA-256",
    ),
}


def test_reasons_name_only_files_of_the_model(tmp_path: Path) -> None:
    root = tmp_path / "exports with a space"
    tiny_models.write_model(root, "good", kind="gan")
    for name, (spoil, _) in BAD.items():
        spoil(tiny_models.write_model(root, name, kind="gan"))
    with (
        served(root, tmp_path / "log") as server,
        server.models() as models,
        server.generative() as generative,
    ):
        listed = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S)
        reported = {model.name: [model.reason] for model in listed.models}
        assert reported.pop("good") == [""]
        reload = models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        for outcome in reload.outcomes:
            if outcome.name != "good":
                reported[outcome.name].append(outcome.reason)
        for name, reasons in reported.items():
            request = models_pb.GetModelRequest(model=ref(name, 1))
            reasons.append(models.GetModel(request, timeout=TIMEOUT_S).model.reason)
            refusal = refused(
                generative.Sample, pb.SampleRequest(model=ref(name, 1), count=1), timeout=TIMEOUT_S
            )
            assert refusal.reason == "MODEL_NOT_FOUND"
            reasons += refusal.texts
        log = server.log
    assert reported.keys() == BAD.keys()
    for name, (_, pattern) in BAD.items():
        for text in reported[name][:3]:
            assert re.search(pattern, text), (name, text)
        for text in reported[name]:
            assert not secrets_of(text), (name, text)
            assert str(root) not in text
            assert "exports with" not in text
    # The log has more details than the clients get.
    assert str(root) in log
