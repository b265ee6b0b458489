"""What `--device cuda` really does, on a machine that has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server import device
from latentserve_server.engine import OnnxEngine
from latentserve_server.manifest import read_manifest
from served import served

pytestmark = pytest.mark.gpu

SHIPPED = sorted((Path(__file__).parents[2] / "exports").glob("*/*/manifest.json"))


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_the_server_runs_on_cuda_and_says_so(tmp_path: Path, wanted: str) -> None:
    tiny_models.write_model(tmp_path / "exports", "tiny-vae", tolerance=1e-4)
    images = tiny_models.images(5)
    request = pb.ReconstructRequest(
        images=tensor_pb2.Images(
            tensor=tensor_pb2.Tensor(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=images.shape, data=images.tobytes()
            )
        )
    )
    with served(tmp_path / "exports", tmp_path / "log", "--device", wanted) as server:
        with server.generative() as stub:
            reply = stub.Reconstruct(request, timeout=10.0)
        assert server.stop() == 0
    assert reply.served_by.provider == "CUDAExecutionProvider"
    found = np.frombuffer(reply.images.tensor.data, np.float32).reshape(images.shape)
    expected = tiny_models.decode(tiny_models.encode(images))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("manifest", SHIPPED, ids=lambda path: path.parts[-3])
def test_shipped_exports_keep_their_golden_outputs_on_cuda(manifest: Path) -> None:
    engine = OnnxEngine(read_manifest(manifest.parent), device.choose_device("cuda"), threads=1)
    assert engine.check_golden() <= 1e-4
