"""ONNX engine: checks of a graph against its manifest and its golden outputs."""

from __future__ import annotations

import dataclasses
import gc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny_models
from latentserve_server.engine.device import CPU, CPU_PROVIDER
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import read_manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.lifecycle import Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import State

Document = dict[str, Any]


def engine_of(folder: Path) -> OnnxEngine:
    return OnnxEngine(read_manifest(folder), CPU, threads=1)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ManifestError) as refused:
        call()
    reason = str(refused.value)
    assert "\n" not in reason
    assert len(reason) < 800
    return reason


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    """A model of one graph, decode.onnx, for `decode` and `sample`."""
    return tiny_models.write_model(tmp_path, "tiny", kind="gan")


def change_manifest(folder: Path, change: Callable[[Document], None]) -> None:
    document = tiny_models.read_manifest(folder)
    change(document)
    tiny_models.write_manifest(folder, document)


def change_graph(folder: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(folder / "decode.onnx")
    change(model.graph)
    onnx.save(model, folder / "decode.onnx")
    change_manifest(folder, lambda document: None)


# --- outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_every_operation_computes_the_expected_outputs(tmp_path: Path, rows: int) -> None:
    vae = engine_of(tiny_models.write_model(tmp_path, "vae", kind="vae"))
    denoiser = engine_of(tiny_models.write_model(tmp_path, "denoiser", kind="denoising"))
    x = tiny_models.images(rows, seed=rows)
    z = np.random.default_rng(rows).standard_normal((rows, tiny_models.DIM), dtype=np.float32)
    mean, log_variance = vae.run("encode", [x])
    np.testing.assert_allclose(mean, tiny_models.encode(x), atol=1e-6)
    np.testing.assert_allclose(log_variance, tiny_models.log_variance(x), atol=1e-6)
    there_and_back = tiny_models.decode(tiny_models.encode(x))
    for engine, operation, given, expected in (
        (vae, "decode", z, tiny_models.decode(z)),
        (vae, "sample", z, tiny_models.decode(z)),
        (vae, "reconstruct", x, there_and_back),
        (denoiser, "denoise", x, there_and_back),
    ):
        (found,) = engine.run(operation, [given])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_outputs_come_in_the_order_of_the_manifest_not_of_the_graph(tmp_path: Path) -> None:
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae")
    change_manifest(folder, lambda document: document["operations"]["encode"]["outputs"].reverse())
    x = tiny_models.images(2)
    first, second = engine_of(folder).run("encode", [x])
    np.testing.assert_allclose(first, tiny_models.log_variance(x), atol=1e-6)
    np.testing.assert_allclose(second, tiny_models.encode(x), atol=1e-6)


def test_the_engine_reports_its_provider(gan: Path) -> None:
    assert engine_of(gan).provider == CPU_PROVIDER


def test_warming_up_runs_every_operation_at_every_batch_size(tmp_path: Path) -> None:
    class Recorder(OnnxEngine):
        """Records the runs of the warm-up."""

        def run(self, operation: str, inputs: Any) -> Any:
            seen.append((operation, len(inputs[0])))
            return super().run(operation, inputs)

    seen: list[tuple[str, int]] = []
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae")
    ran = Recorder(read_manifest(folder), CPU, threads=1).warm_up((1, 7))
    operations = ("encode", "decode", "reconstruct", "sample")
    expected = sorted((name, rows) for name in operations for rows in (1, 7))
    assert sorted(set(seen)) == expected
    assert sorted((name, rows) for name, rows, _ in ran) == expected
    assert all(seconds > 0 for _, _, seconds in ran)


# --- graphs that do not match the manifest ----------------------------------------------------


def test_a_file_that_is_no_graph_is_refused(gan: Path) -> None:
    (gan / "decode.onnx").write_bytes(b"this is no graph")
    change_manifest(gan, lambda document: None)
    assert "decode.onnx cannot be loaded" in refusal(lambda: engine_of(gan))


def test_a_graph_that_is_cut_off_is_refused(gan: Path) -> None:
    path = gan / "decode.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    change_manifest(gan, lambda document: None)
    assert "decode.onnx cannot be loaded" in refusal(lambda: engine_of(gan))


def test_a_graph_with_an_unknown_operator_is_refused_by_its_name(gan: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.node[1].op_type = "Sigmoidish"

    change_graph(gan, change)
    reason = refusal(lambda: engine_of(gan))
    assert "decode.onnx cannot be loaded" in reason
    assert "Sigmoidish" in reason


def test_an_input_that_the_graph_does_not_have_is_named(gan: Path) -> None:
    def change(document: Document) -> None:
        for operation in ("decode", "sample"):
            document["operations"][operation]["inputs"] = ["z"]
            document["golden"]["inputs"][operation] = {"z": f"{operation}.latents"}

    change_manifest(gan, change)
    reason = refusal(lambda: engine_of(gan))
    assert "decode.onnx has the inputs ['latents']" in reason
    assert "['z']" in reason


def test_an_output_that_the_graph_does_not_have_is_named(gan: Path) -> None:
    def change(document: Document) -> None:
        document["operations"]["decode"]["outputs"] = ["pictures"]
        document["golden"]["outputs"]["decode"] = {"pictures": "decode.images"}

    change_manifest(gan, change)
    reason = refusal(lambda: engine_of(gan))
    assert "decode.onnx has the outputs ['images']" in reason
    assert "['pictures']" in reason


def test_an_input_that_the_manifest_does_not_name_is_refused(gan: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.input.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["batch"]))

    change_graph(gan, change)
    assert "'labels'" in refusal(lambda: engine_of(gan))


def _static_batch(graph: onnx.GraphProto) -> None:
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 2


def _flat_images(graph: onnx.GraphProto) -> None:
    """Remove the last node, which reshapes the pixels to images."""
    del graph.node[2]
    graph.node[1].output[0] = "images"
    del graph.output[0].type.tensor_type.shape.dim[1:]
    graph.output[0].type.tensor_type.shape.dim.add().dim_value = tiny_models.PIXELS


def _end_with(operator: str, data_type: int, shape: list[Any] | None, **options: Any) -> Any:
    def change(graph: onnx.GraphProto) -> None:
        graph.node[2].output[0] = "last"
        graph.node.append(helper.make_node(operator, ["last"], ["images"], **options))
        graph.output[0].CopyFrom(helper.make_tensor_value_info("images", data_type, shape))

    return change


IMAGE = ["batch", 1, tiny_models.SIZE, tiny_models.SIZE]
EXPECTED_IMAGES = f"expected tensor(float) ['batch', 1, {tiny_models.SIZE}, {tiny_models.SIZE}]"
BAD_TENSORS: dict[str, tuple[Callable[[onnx.GraphProto], None], list[str]]] = {
    "a fixed batch": (_static_batch, ["latents", "[2, 3]", "expected tensor(float) ['batch', 3]"]),
    "flat images": (_flat_images, ["images", f"['batch', {tiny_models.PIXELS}]", EXPECTED_IMAGES]),
    "doubles": (
        _end_with("Cast", TensorProto.DOUBLE, IMAGE, to=TensorProto.DOUBLE),
        ["images", "tensor(double)", EXPECTED_IMAGES],
    ),
    "half floats": (
        _end_with("Cast", TensorProto.FLOAT16, IMAGE, to=TensorProto.FLOAT16),
        ["images", "tensor(float16)", EXPECTED_IMAGES],
    ),
    "a single number": (
        _end_with("ReduceSum", TensorProto.FLOAT, [], keepdims=0),
        ["images", EXPECTED_IMAGES],
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_tensor_of_another_type_or_shape_is_refused_with_both(gan: Path, case: str) -> None:
    change, parts = BAD_TENSORS[case]
    change_graph(gan, change)
    reason = refusal(lambda: engine_of(gan))
    for part in parts:
        assert part in reason


def test_a_list_of_tensors_in_place_of_one_is_refused(gan: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        _end_with("SequenceConstruct", TensorProto.FLOAT, [])(graph)
        graph.output[0].CopyFrom(
            helper.make_tensor_sequence_value_info("images", TensorProto.FLOAT, None)
        )

    change_graph(gan, change)
    assert "images" in refusal(lambda: engine_of(gan))


@pytest.mark.parametrize(("part", "field", "value"), [("latent", "dim", 4), ("image", "width", 5)])
def test_sizes_of_the_manifest_that_are_not_those_of_the_graph_are_refused(
    gan: Path, part: str, field: str, value: int
) -> None:
    def change(document: Document) -> None:
        document[part][field] = value

    change_manifest(gan, change)
    assert str(value) in refusal(lambda: engine_of(gan)).partition("expected")[2]


# --- golden outputs ---------------------------------------------------------------------------


def rewrite_golden(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with np.load(folder / "golden.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / "golden.npz", **arrays)
    change_manifest(folder, lambda document: None)


def _add_to(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].flat[-1] += value

    return change


def _replace(name: str, how: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = how(arrays[name])

    return change


def test_golden_outputs_are_met_within_the_tolerance(tmp_path: Path) -> None:
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae")
    assert 0.0 <= engine_of(folder).check_golden() <= 1e-5


def test_the_largest_difference_of_all_operations_is_reported(tmp_path: Path) -> None:
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae", tolerance=0.1)
    rewrite_golden(folder, _add_to("decode.images", 0.05))
    assert engine_of(folder).check_golden() == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["encode.mean", "encode.log_variance", "decode.images", "reconstruct.reconstruction"]
)
def test_one_value_that_differs_refuses_the_model(tmp_path: Path, name: str) -> None:
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae")
    rewrite_golden(folder, _add_to(name, 1e-3))
    reason = refusal(engine_of(folder).check_golden)
    operation, _, output = name.partition(".")
    assert operation in reason
    assert output in reason
    assert "0.001" in reason
    assert "tolerance is 1e-05" in reason


def test_a_less_precise_device_has_a_larger_tolerance(tmp_path: Path) -> None:
    """As for CUDA with TF32; a larger tolerance of the manifest takes precedence."""
    rough = dataclasses.replace(CPU, tolerance=5e-3)
    folder = tiny_models.write_model(tmp_path, "vae", kind="vae")
    rewrite_golden(folder, _add_to("decode.images", 1e-3))
    engine = OnnxEngine(read_manifest(folder), rough, threads=1)
    assert engine.check_golden() == pytest.approx(1e-3, abs=1e-5)
    rewrite_golden(folder, _add_to("decode.images", 1e-2))
    engine = OnnxEngine(read_manifest(folder), rough, threads=1)
    assert "tolerance is 0.005" in refusal(engine.check_golden)


UNUSABLE_GOLDEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "an output that is NaN": (_add_to("decode.images", np.nan), "nan"),
    "outputs of another shape": (_replace("decode.images", lambda array: array[:, 0]), "shape"),
    "a row too few": (_replace("decode.images", lambda array: array[:1]), "shape"),
    "inputs of another shape": (_replace("decode.latents", lambda array: array[:, :2]), "latents"),
    "inputs of another type": (_replace("decode.latents", lambda array: array.astype("f8")), ""),
    "no rows at all": (
        lambda arrays: arrays.update({name: arrays[name][:0] for name in arrays}),
        "golden",
    ),
    "a missing output": (lambda arrays: arrays.pop("decode.images"), "decode.images"),
    "a missing input": (lambda arrays: arrays.pop("decode.latents"), "decode.latents"),
    "outputs that are text": (_replace("decode.images", lambda array: array.astype(str)), ""),
}


@pytest.mark.parametrize("case", UNUSABLE_GOLDEN)
def test_golden_arrays_that_cannot_be_compared_refuse_the_model(gan: Path, case: str) -> None:
    change, part = UNUSABLE_GOLDEN[case]
    rewrite_golden(gan, change)
    assert part in refusal(engine_of(gan).check_golden)


def _damaged_archive(path: Path) -> None:
    with np.load(path) as file:
        np.savez_compressed(path, **dict(file))
    content = path.read_bytes()
    start = content.index(b".npy") + 40
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])


def _unpickled_object(path: Path) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    arrays["decode.images"] = np.array([{"a": 1}], dtype=object)
    np.savez(path, **arrays)


def _single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


BAD_ARCHIVES: dict[str, Callable[[Path], object]] = {
    "no archive": lambda path: path.write_bytes(b"golden? brass!"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "damaged": _damaged_archive,
    "a pickled object": _unpickled_object,
    "one array without a name": _single_array,
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_golden_file_that_cannot_be_read_refuses_the_model(gan: Path, case: str) -> None:
    BAD_ARCHIVES[case](gan / "golden.npz")
    change_manifest(gan, lambda document: None)
    with warnings.catch_warnings():
        # The next test checks for open files; here they must not fail another test.
        warnings.simplefilter("ignore", ResourceWarning)
        assert "golden.npz is not usable" in refusal(engine_of(gan).check_golden)
        gc.collect()


def test_a_golden_file_that_cannot_be_read_is_closed(gan: Path) -> None:
    """numpy does not close an unreadable archive, unless it gets an open file."""
    path = gan / "golden.npz"
    path.write_bytes(path.read_bytes()[:-50])
    change_manifest(gan, lambda document: None)
    gc.collect()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        refusal(engine_of(gan).check_golden)
        gc.collect()
    assert [str(warning.message) for warning in seen] == []


def test_the_damaged_archive_of_these_tests_is_damaged(gan: Path) -> None:
    _damaged_archive(gan / "golden.npz")
    with (
        np.load(gan / "golden.npz") as file,
        pytest.raises((zlib.error, Exception), match=r"(?i)decompress|bad|crc|invalid"),
    ):
        dict(file)


# --- a graph that only fails at some batch sizes ----------------------------------------------


def test_a_graph_that_fails_at_other_batch_sizes_does_not_affect_other_models(
    tmp_path: Path,
) -> None:
    """It reads the second row of the batch, which the warm-up with one row does not have."""
    bad = tiny_models.write_model(tmp_path, "bad", kind="gan")

    def change(graph: onnx.GraphProto) -> None:
        graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"))
        reshape = graph.node.pop()
        graph.node.append(helper.make_node("Gather", ["pixels", "one"], ["second"], axis=0))
        graph.node.append(helper.make_node("Mul", ["second", "zero"], ["nothing"]))
        graph.node.append(helper.make_node("Add", ["pixels", "nothing"], ["same"]))
        reshape.input[0] = "same"
        graph.node.append(reshape)

    change_graph(bad, change)
    assert engine_of(bad).check_golden() < 1e-5
    tiny_models.write_model(tmp_path, "good", kind="gan")
    repository = Repository(
        tmp_path,
        Loader(
            lambda manifest: OnnxEngine(manifest, CPU, threads=1),
            limits=lambda name: Limits(max_batch_rows=8, queue_rows=64),
        ),
        max_versions=4,
    )
    repository.scan()
    try:
        repository.load_all()
        states = {entry.name: entry.state for entry in repository.versions()}
        assert states == {"bad": State.REFUSED, "good": State.READY}
        assert repository.find("bad", 1).reason
    finally:
        repository.close(timeout_s=5.0)
