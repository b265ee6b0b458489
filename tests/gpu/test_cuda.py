"""Tests of `--device cuda` on a machine with a GPU.

`python benchmarks/gpu.py` runs these tests and the GPU benchmarks in one command.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.engine import device
from latentserve_server.engine.cuda_options import CONV_SEARCHES, CudaOptions
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import Floats, OnnxEngine
from latentserve_server.errors import DeviceUnavailable, OutOfMemory
from latentserve_server.manifest.reader import read_manifest
from served import served

pytestmark = pytest.mark.gpu

EXPORTS = Path(__file__).parents[2] / "exports"
SHIPPED = sorted(path.parent for path in EXPORTS.glob("*/*/manifest.json"))
CONVOLUTIONAL = next(folder for folder in SHIPPED if folder.parent.name == "mnist-vae")
MAX_ROWS = 12
PLAIN = CudaOptions(io_binding=False)
BOUND = CudaOptions()
GRAPHS = CudaOptions(cuda_graphs=True)

each_export = pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.parts[-2])
each_way = pytest.mark.parametrize(
    "chosen", [PLAIN, BOUND, GRAPHS], ids=["plain", "bound", "graphs"]
)


def engine_of(folder: Path, chosen: CudaOptions, max_rows: int = MAX_ROWS) -> OnnxEngine:
    on = device.choose_device("cuda", chosen, max_batch_rows=max_rows)
    kind = IoBindingEngine if on.io_binding else OnnxEngine
    return kind(read_manifest(folder), on, threads=1)


def images(rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((rows, 1, 28, 28), dtype=np.float32)


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
@pytest.mark.parametrize("graphs", ["no", "yes"])
def test_the_server_runs_on_cuda_and_reports_it(tmp_path: Path, wanted: str, graphs: str) -> None:
    tiny_models.write_model(tmp_path / "exports", "tiny-vae", tolerance=1e-4)
    sent = tiny_models.images(5)
    request = pb.ReconstructRequest(
        images=tensor_pb2.Images(
            tensor=tensor_pb2.Tensor(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=sent.shape, data=sent.tobytes()
            )
        )
    )
    flags = ("--device", wanted, "--cuda-graphs", graphs)
    with served(tmp_path / "exports", tmp_path / "log", *flags) as server:
        with server.generative() as stub:
            reply = stub.Reconstruct(request, timeout=10.0)
        assert f"CUDA graphs {graphs}" in server.log
        assert server.stop() == 0
    assert reply.served_by.provider == "CUDAExecutionProvider"
    found = np.frombuffer(reply.images.tensor.data, np.float32).reshape(sent.shape)
    expected = tiny_models.decode(tiny_models.encode(sent))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="--device-id is 900"):
        device.choose_device("cuda", CudaOptions(device_id=900))


@each_export
@each_way
def test_shipped_exports_keep_their_golden_outputs(folder: Path, chosen: CudaOptions) -> None:
    assert engine_of(folder, chosen).check_golden() <= 1e-4


@pytest.mark.parametrize(
    "chosen",
    [
        CudaOptions(tf32=True),
        CudaOptions(prefer_nhwc=True),
        CudaOptions(mem_limit_mb=2048),
        *(CudaOptions(conv_search=search) for search in CONV_SEARCHES),
    ],
    ids=CudaOptions.describe,
)
def test_every_setting_keeps_the_golden_outputs(chosen: CudaOptions) -> None:
    tolerance = device.TF32_TOLERANCE if chosen.tf32 else 1e-4
    assert engine_of(CONVOLUTIONAL, chosen).check_golden() <= tolerance


@pytest.mark.parametrize("chosen", [BOUND, GRAPHS], ids=["bound", "graphs"])
def test_every_batch_size_gives_the_outputs_of_a_plain_run(chosen: CudaOptions) -> None:
    plain, engine = engine_of(CONVOLUTIONAL, PLAIN), engine_of(CONVOLUTIONAL, chosen)
    engine.warm_up((1, MAX_ROWS))
    for rows in (*range(1, MAX_ROWS + 1), 2 * MAX_ROWS + 3, 1):
        sent = images(rows, seed=rows)
        for operation in ("encode", "reconstruct"):
            outputs, expected = engine.run(operation, [sent]), plain.run(operation, [sent])
            for one, other in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)


@each_way
def test_outputs_are_not_overwritten_by_the_next_batch(chosen: CudaOptions) -> None:
    engine = engine_of(CONVOLUTIONAL, chosen)
    (first,) = engine.run("reconstruct", [images(3, seed=1)])
    copy = first.copy()
    (second,) = engine.run("reconstruct", [images(3, seed=2)])
    np.testing.assert_array_equal(first, copy)
    assert not np.array_equal(first, second)


def test_models_run_while_another_captures_its_graphs() -> None:
    """As in a reload under load: no other GPU work may run during a capture."""
    serving, failures = engine_of(CONVOLUTIONAL, GRAPHS), []
    serving.warm_up((1, MAX_ROWS))
    expected = [serving.run("reconstruct", [images(rows)])[0] for rows in range(1, MAX_ROWS + 1)]
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for rows in range(1, MAX_ROWS + 1):
                (found,) = serving.run("reconstruct", [images(rows)])
                if not np.array_equal(found, expected[rows - 1]):
                    failures.append(rows)

    caller = threading.Thread(target=serve)
    caller.start()
    try:
        for folder in SHIPPED:
            engine_of(folder, GRAPHS).warm_up((1, MAX_ROWS))
    finally:
        stop.set()
        caller.join(60.0)
    assert failures == []


@pytest.mark.parametrize("chosen", [PLAIN, BOUND], ids=["plain", "bound"])
def test_a_batch_that_does_not_fit_raises_out_of_memory_and_a_smaller_one_runs(
    chosen: CudaOptions,
) -> None:
    limited = CudaOptions(io_binding=chosen.io_binding, mem_limit_mb=64)
    engine = engine_of(CONVOLUTIONAL, limited, max_rows=1 << 16)
    with pytest.raises(OutOfMemory, match="no memory to reconstruct 65536 rows"):
        engine.run("reconstruct", [images(1 << 16)])
    assert len(engine.run("reconstruct", [images(16)])[0]) == 16


@each_way
def test_float16_is_served_with_float32_at_both_ends(tmp_path: Path, chosen: CudaOptions) -> None:
    """Converts a shipped model like `export --precision float16`."""
    half_precision = pytest.importorskip("latentserve_training.graphs.float16")
    folder = tmp_path / CONVOLUTIONAL.parent.name / CONVOLUTIONAL.name
    folder.mkdir(parents=True)
    document = json.loads((CONVOLUTIONAL / "manifest.json").read_text("utf-8"))
    document["precision"], document["golden"]["tolerance"] = "float16", 0.02
    for name in document["files"]:
        content = (CONVOLUTIONAL / name).read_bytes()
        if name.endswith(".onnx"):
            half = half_precision.to_float16(onnx.load_from_string(content), name)
            content = half.SerializeToString()
        (folder / name).write_bytes(content)
        document["files"][name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    engine = engine_of(folder, chosen)
    assert 0.0 < engine.check_golden() <= 0.02
    assert engine.run("reconstruct", [images(5)])[0].dtype == np.float32
