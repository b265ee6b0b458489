"""Weights in a file beside the graph that is truncated or overwritten in place while it is served.

ONNX Runtime would map such a file: a truncated one would end the process with SIGBUS, an
overwritten one would change the replies under the same digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from served import Server, served

TIMEOUT_S = 20.0
ROWS = 2**16  # 4 MB of weights: the pages are not in a cache of the process


def write_lookup(root: Path) -> Path:
    """Write a model that adds a row of a large external table, chosen by the first latent."""
    folder = tiny_models.write_model(root, "tiny-gan", kind="gan")
    model = onnx.load(folder / "decode.onnx")
    graph = model.graph
    table = np.zeros((ROWS, tiny_models.PIXELS), dtype=np.float32)
    graph.initializer.append(numpy_helper.from_array(table, "table"))
    graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "first"))
    matmul, sigmoid, reshape = graph.node
    nodes = [
        helper.make_node("Gather", ["latents", "first"], ["chosen"], axis=1),
        helper.make_node("Cast", ["chosen"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Flatten", ["index"], ["column"], axis=1),
        helper.make_node("GatherND", ["table", "column"], ["row"]),
        helper.make_node("Add", [matmul.output[0], "row"], ["sum"]),
    ]
    sigmoid.input[0] = "sum"
    graph.ClearField("node")
    graph.node.extend([matmul, *nodes, sigmoid, reshape])
    onnx.save_model(
        model,
        str(folder / "decode.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=1024,
    )
    assert (folder / "weights.bin").stat().st_size == table.nbytes
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))
    return folder


def decode(server: Server, first: float) -> bytes:
    latents = np.array([[first, 0, 0]], dtype=np.float32)
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=latents.shape, data=latents.tobytes()
    )
    with server.generative() as stub:
        reply = stub.Decode(pb.DecodeRequest(latents=tensor), timeout=TIMEOUT_S)
    data: bytes = reply.images.tensor.data
    return data


def truncate(path: Path) -> None:
    os.truncate(path, 4096)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(np.full(path.stat().st_size // 4, 5.0, dtype=np.float32).tobytes())


@pytest.mark.parametrize("change", [truncate, overwrite])
def test_weights_that_change_in_place_change_no_reply(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = tmp_path / "exports"
    folder = write_lookup(root)
    with served(root, tmp_path / "log") as server:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8")
        assert "weights.bin" not in maps
        # Rows that were read before, and rows on other pages that were not.
        before = [decode(server, first) for first in (0, 100)]
        change(folder / "weights.bin")
        assert [decode(server, first) for first in (0, 100)] == before
        for first in (5000, 9000):
            with np.errstate(over="ignore"):
                expected = tiny_models.decode(np.array([[first, 0, 0]], dtype=np.float32))
            found = np.frombuffer(decode(server, first), dtype=np.float32)
            np.testing.assert_allclose(found, expected.ravel(), atol=1e-5)
        with server.models() as models:
            reload = models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        assert reload.outcomes[0].action == models_pb.ReloadOutcome.ACTION_REFUSED
        assert "weights.bin has " in reload.outcomes[0].reason
        assert server.process.poll() is None
