"""Tests that no reply has NaN or infinite values: only the call that causes them fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from refusals import refused
from scraped import value
from served import Server, ref, served

TIMEOUT_S = 20.0
LIMIT = 34.0  # logits above it overflow


def write_overflowing(root: Path) -> None:
    """Write a GAN that gives NaN for the pixels of rows with logits above LIMIT."""
    folder = tiny_models.write_model(root, "tiny-gan", kind="gan")
    model = onnx.load(folder / "decode.onnx")
    graph = model.graph
    big = np.float32(np.finfo(np.float32).max / LIMIT)
    graph.initializer.append(numpy_helper.from_array(np.array(big), "big"))
    matmul, sigmoid, reshape = graph.node
    nodes = [
        helper.make_node("Mul", [matmul.output[0], "big"], ["huge"]),
        helper.make_node("Sub", ["huge", "huge"], ["nothing"]),
        helper.make_node("Add", [sigmoid.output[0], "nothing"], ["sum"]),
    ]
    reshape.input[0] = "sum"
    graph.ClearField("node")
    graph.node.extend([matmul, sigmoid, *nodes, reshape])
    onnx.save(model, folder / "decode.onnx")
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))


@pytest.fixture
def server(tmp_path: Path) -> Any:
    write_overflowing(tmp_path / "exports")
    flags = ("--metrics-listen", "127.0.0.1:0", "--max-batch-rows", "16", "--max-delay-ms", "50")
    with served(tmp_path / "exports", tmp_path / "log", *flags) as running:
        yield running


def decode(latents: NDArray[np.float32], model: str = "") -> pb.DecodeRequest:
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=latents.shape, data=latents.tobytes()
    )
    return pb.DecodeRequest(model=ref(model), latents=tensor)


def failures(server: Server, operation: str) -> float:
    return value(
        server,
        "latentserve_not_finite_outputs_total",
        model="tiny-gan",
        version="1",
        operation=operation,
    )


def test_latents_that_give_nan_fail_their_own_call_alone(server: Server) -> None:
    good = np.random.default_rng(1).standard_normal((3, tiny_models.DIM)).astype(np.float32)
    bad = good.copy()
    bad[2] = 1000.0
    with server.generative() as stub:
        calls = [
            stub.Decode.future(decode(bad if number % 3 == 1 else good), timeout=TIMEOUT_S)
            for number in range(9)
        ]
        for number, call in enumerate(calls):
            if number % 3 == 1:
                refusal = refused(lambda: call.result())  # noqa: B023 - called at once
                assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["latents.data"])
                assert "row 2 gives an image with NaN or infinite values" in refusal.message
            else:
                found = np.frombuffer(call.result().images.tensor.data, dtype=np.float32)
                expected = tiny_models.decode(good).ravel()
                np.testing.assert_allclose(found, expected, atol=1e-5)
    assert failures(server, "decode") == 3


def test_a_request_over_several_batches_names_its_row(server: Server) -> None:
    latents = np.zeros((40, tiny_models.DIM), dtype=np.float32)
    latents[37] = -1000.0
    with server.generative() as stub:
        assert "row 37 gives" in refused(stub.Decode, decode(latents), timeout=TIMEOUT_S).message
        stub.Decode(decode(latents[:37]), timeout=TIMEOUT_S)


def test_samples_that_are_nan_are_an_error_of_the_model(server: Server) -> None:
    hot = {"count": 200, "temperature": 10.0, "seed": 1}
    with server.generative() as stub:
        refusal = refused(stub.Sample, pb.SampleRequest(**hot), timeout=TIMEOUT_S)
        assert (refusal.code, refusal.reason) == ("INTERNAL", "OUTPUT_NOT_FINITE")
        assert "NaN or infinite values for row" in refusal.message
        stub.Sample(pb.SampleRequest(count=200, seed=1), timeout=TIMEOUT_S)
        stream = stub.SampleStream(pb.SampleStreamRequest(**hot), timeout=TIMEOUT_S)
        refusal = refused(lambda: list(stream))
        assert (refusal.code, refusal.reason) == ("INTERNAL", "OUTPUT_NOT_FINITE")
    assert failures(server, "sample") == 2


@pytest.mark.parametrize(
    ("model", "largest"),
    [
        ("tiny-gan", 1e4),
        ("tiny-mixture", 1e4 * (9 + 1)),
        ("tiny-autoencoder", float(np.finfo(np.float32).max)),
    ],
)
def test_latents_are_bounded_by_the_prior(
    server: Server, tmp_path: Path, model: str, largest: float
) -> None:
    del server
    root = tmp_path / "bounded"
    tiny_models.write_model(root, "tiny-gan", kind="gan")
    tiny_models.write_model(root, "tiny-autoencoder", kind="autoencoder")
    tiny_models.write_model(root, "tiny-mixture", kind="autoencoder", with_mixture=True)
    with served(root, tmp_path / "log") as running, running.generative() as stub:
        within = np.zeros((1, tiny_models.DIM), dtype=np.float32)
        within[0, 1] = -largest * 0.999 if largest < 1e38 else 1e30
        stub.Decode(decode(within, model), timeout=TIMEOUT_S)
        if largest > 1e38:
            return
        refusal = refused(stub.Decode, decode(within * np.float32(1.01), model), timeout=TIMEOUT_S)
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["latents.data"])
        assert f"expected {-largest:g} to {largest:g}" in refusal.message
