"""A float16 export is served like any other: float32 on the wire, close to the float32 export."""

import json

import numpy as np
import pytest

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2
from latentserve_training.__main__ import main
from served import served

QUICK = ["training.epochs=1", "data.max_train_images=300", "data.max_test_images=50"]


@pytest.mark.slow
def test_float16_and_float32_from_training_to_the_reply(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = [argument for each in QUICK for argument in ("--set", each)]
    assert main(["train", "--config", "mnist-linear", *overrides]) == 0
    assert main(["export", "runs/mnist-linear"]) == 0
    assert main(["export", "runs/mnist-linear", "--precision", "float16"]) == 0
    assert "version 2" in (output := capsys.readouterr().out)
    assert "float16" in output
    half = json.loads((tmp_path / "exports/mnist-linear/2/manifest.json").read_text("utf-8"))

    images = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=images.shape, data=images.tobytes()
    )
    replies = {}
    with served(tmp_path / "exports", tmp_path / "log", "--device", "cpu") as server:
        with server.generative() as stub, server.models() as models:
            for version in (1, 2):
                model = tensor_pb2.ModelRef(name="mnist-linear", version=version)
                replies[version] = stub.Reconstruct(
                    generative_service_pb2.ReconstructRequest(
                        model=model, images=tensor_pb2.Images(tensor=tensor)
                    ),
                    timeout=10.0,
                ).images.tensor
            request = model_service_pb2.GetModelRequest(model=model)
            described = models.GetModel(request, timeout=10.0).model
        assert "mnist-linear version 2 is ready on CPUExecutionProvider in float16" in server.log
        assert server.stop() == 0
    assert described.description.endswith("computes in float16.")
    assert {reply.data_type for reply in replies.values()} == {tensor_pb2.DATA_TYPE_FLOAT32}
    float32, float16 = (np.frombuffer(replies[version].data, np.float32) for version in (1, 2))
    difference = np.abs(float32 - float16).max()
    assert 0.0 < difference <= half["golden"]["tolerance"] <= 0.1
