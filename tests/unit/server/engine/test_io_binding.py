"""IO binding changes how a batch runs, but not its outputs.

The device is the CPU here: the same code, with buffers in host memory and no CUDA graph.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from latentserve_server.app import App
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.config import Settings
from latentserve_server.engine.cuda_options import batch_buckets
from latentserve_server.engine.device import CPU, CPU_PROVIDER, Device
from latentserve_server.engine.factory import onnx_engine
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import Floats, OnnxEngine
from latentserve_server.engine.session import open_session
from latentserve_server.errors import EngineFailure
from latentserve_server.manifest.reader import Manifest, read_manifest

MAX_ROWS = 12


def cpu_device(*, graphs: bool = False) -> Device:
    """Return the CPU with IO binding; with `graphs`, batches are padded as for CUDA graphs."""
    buckets = batch_buckets(MAX_ROWS)
    return Device("cpu", CPU_PROVIDER, {}, io_binding=True, cuda_graphs=graphs, buckets=buckets)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(tiny_models.write_model(tmp_path, "vae", kind="vae"))


@pytest.fixture
def plain(manifest: Manifest) -> OnnxEngine:
    return OnnxEngine(manifest, CPU, threads=1)


class Recording:
    """A real session that records its runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.runs: list[tuple[str | None, str, tuple[int, ...]]] = []
        """Graph id, thread and shape of the first output, of every run."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._session.run_with_iobinding(binding, options)
        try:
            graph_id = options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            graph_id = None
        shape = binding.copy_outputs_to_cpu()[0].shape
        self.runs.append((graph_id, threading.current_thread().name, shape))


def recorded(manifest: Manifest, *, graphs: bool) -> tuple[IoBindingEngine, dict[str, Recording]]:
    sessions: dict[str, Recording] = {}

    def opener(manifest: Manifest, spec: Any, device: Device, threads: int) -> Recording:
        sessions[spec.file] = Recording(open_session(manifest, spec, device, threads))
        return sessions[spec.file]

    device = cpu_device(graphs=graphs)
    return IoBindingEngine(manifest, device, threads=1, opener=opener), sessions


def given(operation: str, rows: int, seed: int = 0) -> Floats:
    if operation in ("decode", "sample"):
        generator = np.random.default_rng(seed)
        return generator.standard_normal((rows, tiny_models.DIM), dtype=np.float32)
    return tiny_models.images(rows, seed)


@pytest.mark.parametrize("graphs", [False, True], ids=["exact rows", "padded"])
@pytest.mark.parametrize("operation", ["encode", "decode", "sample", "reconstruct"])
def test_every_batch_size_gives_the_outputs_of_a_plain_run(
    manifest: Manifest, plain: OnnxEngine, operation: str, graphs: bool
) -> None:
    engine = IoBindingEngine(manifest, cpu_device(graphs=graphs), threads=1)
    # Up and down, so that every buffer is used with fewer rows than before and with more.
    for rows in (1, 2, 3, 5, 8, 12, 11, 7, 4, 3, 1):
        x = given(operation, rows, seed=rows)
        outputs, expected = engine.run(operation, [x]), plain.run(operation, [x])
        assert len(outputs) == len(expected)
        for one, other in zip(outputs, expected, strict=True):
            assert one.dtype == np.float32
            if graphs:  # another batch size may change the order of additions
                np.testing.assert_allclose(one, other, atol=1e-6)
            else:
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("graphs", [False, True])
def test_more_rows_than_the_largest_bucket_run_in_several(
    manifest: Manifest, plain: OnnxEngine, graphs: bool
) -> None:
    engine, sessions = recorded(manifest, graphs=graphs)
    x = tiny_models.images(2 * MAX_ROWS + 3)
    for one, other in zip(engine.run("encode", [x]), plain.run("encode", [x]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    rows = [shape[0] for _, _, shape in sessions["encode.onnx"].runs]
    assert rows == [MAX_ROWS, MAX_ROWS, 4 if graphs else 3]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("rows", [3, 4])
def test_outputs_are_not_overwritten_by_the_next_batch(
    manifest: Manifest, graphs: bool, rows: int
) -> None:
    engine = IoBindingEngine(manifest, cpu_device(graphs=graphs), threads=1)
    answers = engine.run("encode", [tiny_models.images(rows, seed=1)])
    copies = [answer.copy() for answer in answers]
    others = engine.run("encode", [tiny_models.images(rows, seed=2)])
    for answer, copy, other in zip(answers, copies, others, strict=True):
        np.testing.assert_array_equal(answer, copy)
        assert not np.array_equal(answer, other)


def test_the_input_may_be_overwritten_after_the_run(manifest: Manifest) -> None:
    """The batcher overwrites its buffer with the next batch."""
    engine = IoBindingEngine(manifest, cpu_device(), threads=1)
    x = tiny_models.images(4)
    (first,) = engine.run("reconstruct", [x])
    x[:] = 0.0
    np.testing.assert_allclose(
        first, tiny_models.decode(tiny_models.encode(tiny_models.images(4))), atol=1e-6
    )


def test_two_operations_of_one_graph_have_separate_buffers(manifest: Manifest) -> None:
    """decode and sample use the same graph file."""
    engine, sessions = recorded(manifest, graphs=True)
    for operation in ("decode", "sample", "decode", "sample"):
        engine.run(operation, [given(operation, 4)])
    ids = [graph_id for graph_id, _, _ in sessions["decode.onnx"].runs]
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


def test_without_graphs_the_model_runs_on_the_rows_without_padding(manifest: Manifest) -> None:
    engine, sessions = recorded(manifest, graphs=False)
    padding: list[tuple[str, int]] = []
    engine.on_padding = lambda *event: padding.append(event)
    for rows in (3, 5):
        engine.run("reconstruct", [tiny_models.images(rows)])
    found = [(graph_id, shape[0]) for graph_id, _, shape in sessions["reconstruct.onnx"].runs]
    assert found == [(None, 3), (None, 5)]
    assert padding == []


def test_with_graphs_batches_are_padded_to_their_bucket_and_counted(manifest: Manifest) -> None:
    engine, sessions = recorded(manifest, graphs=True)
    padding: list[tuple[str, int]] = []
    engine.on_padding = lambda *event: padding.append(event)
    for rows in (3, 4, 9, 3):
        assert len(engine.run("reconstruct", [tiny_models.images(rows)])[0]) == rows
    found = [(graph_id, shape[0]) for graph_id, _, shape in sessions["reconstruct.onnx"].runs]
    assert found == [("1", 4), ("1", 4), ("2", 12), ("1", 4)]
    assert padding == [("reconstruct", 1), ("reconstruct", 3), ("reconstruct", 1)]


def test_padding_is_zero_after_other_batches(manifest: Manifest) -> None:
    """No output may depend on the rows of an earlier batch."""
    seen: list[Floats] = []

    class Watching(Recording):
        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            super().run_with_iobinding(binding, options)
            seen.append(binding.copy_outputs_to_cpu()[0].copy())

    engine = IoBindingEngine(
        manifest,
        cpu_device(graphs=True),
        threads=1,
        opener=lambda *parts: Watching(open_session(*parts)),
    )
    for rows in (5, 7, 5):
        engine.run("encode", [tiny_models.images(rows, seed=rows)])
    assert [len(padded) for padded in seen] == [8, 8, 8]
    for rows, padded in zip((5, 7, 5), seen, strict=True):
        assert (padded[:rows] != 0.0).all()
        np.testing.assert_array_equal(padded[rows:], 0.0)  # the encoder is linear


def test_graphs_are_captured_and_replayed_on_one_thread(manifest: Manifest) -> None:
    """ONNX Runtime keeps graphs per thread: on another thread they would be captured again."""
    engine, sessions = recorded(manifest, graphs=True)
    engine.warm_up((1, MAX_ROWS))
    caller = threading.Thread(target=engine.run, args=("decode", [given("decode", 2)]))
    caller.start()
    caller.join(10.0)
    assert {thread for _, thread, _ in sessions["decode.onnx"].runs} == {"gpu-0"}


def test_every_graph_is_captured_and_replayed_before_the_model_serves(manifest: Manifest) -> None:
    engine, sessions = recorded(manifest, graphs=True)
    measurements = engine.warm_up((1, MAX_ROWS))
    assert {(name, rows) for name, rows, _ in measurements} >= {("encode", 1), ("encode", 8)}
    runs = [shape[0] for _, _, shape in sessions["encode.onnx"].runs]
    assert runs == [12, 12, 8, 8, 4, 4, 2, 2, 1, 1]
    warm = len({graph_id for graph_id, _, _ in sessions["decode.onnx"].runs})
    assert warm == 2 * 5  # decode and sample
    for rows in range(1, MAX_ROWS + 1):
        engine.run("decode", [given("decode", rows)])
    assert len({graph_id for graph_id, _, _ in sessions["decode.onnx"].runs}) == warm


def test_without_graphs_the_smallest_and_the_largest_batch_are_warmed_up(
    manifest: Manifest,
) -> None:
    engine, sessions = recorded(manifest, graphs=False)
    engine.warm_up((1, MAX_ROWS))
    runs = [shape[0] for _, _, shape in sessions["encode.onnx"].runs]
    assert runs == [MAX_ROWS, MAX_ROWS, 1, 1]


def test_the_golden_outputs_are_met(manifest: Manifest) -> None:
    for graphs in (False, True):
        engine = IoBindingEngine(manifest, cpu_device(graphs=graphs), threads=1)
        assert engine.check_golden() <= 1e-5


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 1, 4, 4)), "float64 [2, 1, 4, 4]"),
        (np.zeros((2, 1, 1, 4), dtype=np.float32), "float32 [2, 1, 1, 4]"),
    ],
)
def test_inputs_that_a_copy_would_cast_or_broadcast_are_refused(
    manifest: Manifest, x: Floats, message: str
) -> None:
    engine = IoBindingEngine(manifest, cpu_device(), threads=1)
    with pytest.raises(EngineFailure) as refused:
        engine.run("encode", [x])
    assert message in str(refused.value)
    assert "expected float32 [rows, 1, 4, 4]" in str(refused.value)


# --- in the server ------------------------------------------------------------------------------


def test_the_device_decides_which_engine_runs(manifest: Manifest) -> None:
    assert type(onnx_engine(manifest, CPU, 1)) is OnnxEngine
    assert type(onnx_engine(manifest, cpu_device(), 1)) is IoBindingEngine


def test_padding_of_served_batches_is_counted(tmp_path: Path) -> None:
    tiny_models.write_model(tmp_path, "vae", kind="vae")

    async def serve() -> list[float | None]:
        server = App(
            Settings(exports=tmp_path, listen="127.0.0.1:0", device="cpu"),
            lambda manifest, device, threads: IoBindingEngine(
                manifest, cpu_device(graphs=True), threads=threads
            ),
        )
        await server.start()
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        finish = asyncio.get_running_loop().call_soon_threadsafe
        try:
            model = server.repository.find("vae", 0).model
            assert model is not None
            model.batcher.submit(
                "decode", (Rows(given("decode", 5)),), None, lambda c: finish(done.set_result, c)
            )
            completion = await asyncio.wait_for(done, 10.0)
        finally:
            await server.stop()
        assert completion.error is None
        assert len(completion.outputs[0]) == 5
        assert completion.batch_rows == 5
        return [
            server.metrics.registry.get_sample_value(
                "latentserve_padding_rows_total",
                {"model": "vae", "version": "1", "operation": operation},
            )
            for operation in ("decode", "encode")
        ]

    assert asyncio.run(serve()) == [3.0, None]
