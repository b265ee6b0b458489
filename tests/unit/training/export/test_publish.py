import dataclasses
import functools
import hashlib
import json
import re
import shutil
import stat

import numpy as np
import onnx
import onnxruntime
import pytest

from latentserve_training.errors import CheckpointError, ConfigError, ExportError
from latentserve_training.export import publish
from latentserve_training.export.manifest import validate_manifest
from latentserve_training.export.publish import export_run
from latentserve_training.export.sampling import sample_latents
from latentserve_training.models.registry import KINDS
from latentserve_training.nn.gaussian_mixture import read_mixture
from latentserve_training.train.checkpoint import load_checkpoint, save_checkpoint
from latentserve_training.train.run_folder import RunFolder

OPERATIONS = {
    "autoencoder": {"encode", "decode", "reconstruct"},
    "contractive": {"encode", "decode", "reconstruct"},
    "denoising": {"encode", "decode", "reconstruct", "denoise"},
    "gan": {"decode", "sample"},
    "linear": {"encode", "decode", "reconstruct"},
    "sparse": {"encode", "decode", "reconstruct"},
    "vae": {"encode", "decode", "reconstruct", "sample"},
    "vae-gan": {"encode", "decode", "reconstruct", "sample"},
}


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, finished_run):
    """One export of each kind for all tests that only read it."""

    @functools.cache
    def export_once(kind, components):
        return export_run(finished_run(kind, components), tmp_path_factory.mktemp("exports"))

    def export(kind, components=0):
        return export_once(kind, components)

    return export


@pytest.fixture(scope="module")
def conversions():
    return {}


@pytest.fixture
def converted_once(monkeypatch, conversions):
    """Convert each graph once for all tests of one run, because it takes seconds."""

    def convert(graph, *shape):
        if graph.file not in conversions:
            conversions[graph.file] = original(graph, *shape)
        return conversions[graph.file]

    original = publish.convert
    monkeypatch.setattr(publish, "convert", convert)


def test_every_kind_is_exported():
    assert OPERATIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", sorted(OPERATIONS))
def test_an_export_has_valid_files_and_golden_outputs(kind, exported):
    export = exported(kind)
    folder = export.folder
    assert folder.parts[-2:] == (f"tiny-{kind}", "1")
    manifest = read_manifest(folder)
    validate_manifest(manifest)
    assert export.version == 1
    assert export.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert set(manifest["operations"]) == OPERATIONS[kind]
    samples = "sample" in manifest["operations"]
    assert manifest["latent"]["prior"] == ("standard_normal" if samples else "none")
    assert (manifest["likelihood"] is None) == (kind != "vae")
    assert_files_are_as_described(folder, manifest)
    assert_golden_outputs_repeat(folder, manifest)


def test_an_export_with_a_sampler_brings_the_mixture_and_the_operation(exported, finished_run):
    folder = exported("autoencoder", components=3).folder
    manifest = read_manifest(folder)
    validate_manifest(manifest)
    assert manifest["latent"] == {
        "dim": 3,
        "prior": "gaussian_mixture",
        "mixture": {"file": "prior.npz", "components": 3},
    }
    assert manifest["operations"]["sample"] == manifest["operations"]["decode"]
    mixture = (folder / "prior.npz").read_bytes()
    assert mixture == finished_run("autoencoder", components=3).mixture.read_bytes()
    assert_files_are_as_described(folder, manifest)
    assert_golden_outputs_repeat(folder, manifest)


@pytest.mark.parametrize(("kind", "components"), [("autoencoder", 3), ("vae", 0)])
def test_the_golden_latents_of_sample_depend_on_their_seed(exported, kind, components):
    folder = exported(kind, components).folder
    seed = read_manifest(folder)["golden"]["sample_seed"]
    mixture = read_mixture(folder / "prior.npz") if components else None
    with np.load(folder / "golden.npz") as arrays:
        np.testing.assert_array_equal(arrays["sample_latents"], sample_latents(seed, 8, 3, mixture))


def test_a_model_that_does_not_sample_has_no_golden_seed(exported):
    assert "sample_seed" not in read_manifest(exported("autoencoder").folder)["golden"]


def assert_files_are_as_described(folder, manifest):
    on_disk = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert on_disk == set(manifest["files"])
    for name, described in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert described["bytes"] == len(content)
        assert described["sha256"] == hashlib.sha256(content).hexdigest()


def assert_golden_outputs_repeat(folder, manifest):
    golden = manifest["golden"]
    with np.load(folder / golden["file"]) as arrays:
        named = {
            name
            for part in ("inputs", "outputs")
            for each in golden[part].values()
            for name in each.values()
        }
        assert named == set(arrays)
        for operation, graph in manifest["operations"].items():
            session = onnxruntime.InferenceSession(
                folder / graph["file"], providers=["CPUExecutionProvider"]
            )
            inputs = {key: arrays[name] for key, name in golden["inputs"][operation].items()}
            assert all(len(each) == 8 and each.dtype == np.float32 for each in inputs.values())
            for output, actual in zip(graph["outputs"], session.run(None, inputs), strict=True):
                expected = arrays[golden["outputs"][operation][output]]
                assert np.abs(actual - expected).max() <= golden["tolerance"]
                assert np.ptp(expected, axis=0).max() > 0, "all rows alike would hide a mix-up"


def test_golden_noise_leaves_the_unit_interval(exported):
    with np.load(exported("denoising").folder / "golden.npz") as arrays:
        assert arrays["denoise_images"].min() < 0
        assert arrays["reconstruct_images"].min() >= 0


def test_no_path_of_this_machine_is_published(exported):
    folder = exported("vae").folder
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(folder.parent.parent).encode() not in content
        assert not re.search(rb"/(home|root|usr|tmp|work)/", content), path.name


def test_each_export_takes_the_next_free_version(tmp_path, finished_run, converted_once):
    run, exports = finished_run("autoencoder"), tmp_path / "exports"
    versions = [export_run(run, exports).version, export_run(run, exports).version]
    export_run(run, exports, version=7)
    assert [*versions, export_run(run, exports).version] == [1, 2, 8]
    assert read_manifest(exports / "tiny-autoencoder" / "8")["version"] == 8


def test_the_same_run_gives_the_same_files(tmp_path, finished_run, exported):
    first, second = exported("vae"), export_run(finished_run("vae"), tmp_path)
    assert read_manifest(first.folder)["files"] == read_manifest(second.folder)["files"]


def test_a_version_is_replaced_only_by_force(tmp_path, finished_run, converted_once):
    run, exports = finished_run("autoencoder"), tmp_path / "exports"
    folder = export_run(run, exports, revision="old").folder
    with pytest.raises(
        ExportError, match=r"1 exists; omit --version to export version 2, or .*--force"
    ):
        export_run(run, exports, version=1)
    (folder / "stray.txt").write_text("left behind")
    export_run(run, exports, version=1, force=True, revision="new")
    assert read_manifest(folder)["training"]["revision"] == "new"
    assert not (folder / "stray.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_versions_start_at_one(tmp_path, finished_run):
    with pytest.raises(ExportError, match="version is 0"):
        export_run(finished_run("autoencoder"), tmp_path / "exports", version=0)


def test_others_may_read_the_export(exported):
    assert stat.S_IMODE(exported("vae").folder.stat().st_mode) == 0o755


def test_a_failed_check_publishes_nothing(tmp_path, finished_run, monkeypatch):
    def corrupt(graph, image_shape, latent_dim):
        model = original(graph, image_shape, latent_dim)
        tensor = next(each for each in model.graph.initializer if each.name.endswith("bias"))
        values = onnx.numpy_helper.to_array(tensor) + 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    original = publish.convert
    monkeypatch.setattr(publish, "convert", corrupt)
    exports = tmp_path / "exports"
    with pytest.raises(ExportError, match="torch and ONNX Runtime differ"):
        export_run(finished_run("autoencoder"), exports)
    assert list((exports / "tiny-autoencoder").iterdir()) == []


def test_a_float16_export_records_its_precision_and_tolerance(tmp_path, finished_run, exported):
    full = exported("vae")
    half = export_run(finished_run("vae"), tmp_path, precision="float16")
    assert (full.precision, half.precision) == ("float32", "float16")
    assert full.largest_difference < 1e-5 < half.largest_difference < 1e-2
    manifest = read_manifest(half.folder)
    validate_manifest(manifest)
    assert manifest["precision"] == "float16"
    assert "precision" not in read_manifest(full.folder)
    assert manifest["description"].endswith("; computes in float16.")
    assert 1e-3 <= manifest["golden"]["tolerance"] <= 0.1
    assert_files_are_as_described(half.folder, manifest)
    assert_golden_outputs_repeat(half.folder, manifest)
    with np.load(half.folder / "golden.npz") as ours, np.load(full.folder / "golden.npz") as theirs:
        for name in theirs:  # the truth is float32 for both
            np.testing.assert_array_equal(ours[name], theirs[name])
    for graph in {each["file"] for each in manifest["operations"].values()}:
        model = onnx.load(half.folder / graph)
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.FLOAT16 in kinds
        assert onnx.TensorProto.FLOAT not in kinds
        ends = (*model.graph.input, *model.graph.output)
        assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_a_float16_graph_that_differs_too_much_is_not_published(
    tmp_path, finished_run, converted_once, monkeypatch
):
    def corrupt(proto, file):
        half = original(proto, file)
        tensor = next(each for each in half.graph.initializer if each.name.endswith("bias"))
        values = onnx.numpy_helper.to_array(tensor) + np.float16(1)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return half

    original = publish.to_float16
    monkeypatch.setattr(publish, "to_float16", corrupt)
    with pytest.raises(ExportError, match=r"differ by .* 0\.01 is allowed"):
        export_run(finished_run("autoencoder"), tmp_path / "exports", precision="float16")
    assert list((tmp_path / "exports" / "tiny-autoencoder").iterdir()) == []


def test_golden_outputs_that_differ_are_not_published(
    tmp_path, finished_run, converted_once, monkeypatch
):
    monkeypatch.setattr(publish, "GOLDEN_TOLERANCE", 1e-12)
    with pytest.raises(ExportError, match="golden outputs differ by"):
        export_run(finished_run("autoencoder"), tmp_path / "exports")


@pytest.fixture
def own_run(tmp_path, finished_run):
    """A run that a test may change."""
    return RunFolder(shutil.copytree(finished_run("autoencoder").path, tmp_path / "run"))


def test_a_name_that_the_server_would_refuse_is_refused_first(tmp_path, own_run):
    checkpoint = load_checkpoint(own_run.best)
    renamed = dataclasses.replace(checkpoint, config=checkpoint.config | {"name": "Not/Good"})
    save_checkpoint(renamed, own_run.best)
    with pytest.raises(ConfigError, match="name is 'Not/Good'"):
        export_run(own_run, tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_a_run_must_be_there_and_finished(tmp_path, own_run):
    with pytest.raises(CheckpointError, match="does not exist; train the model first"):
        export_run(RunFolder(tmp_path / "absent"), tmp_path / "exports")
    own_run.evaluation.unlink()
    with pytest.raises(CheckpointError, match=r"no readable evaluation\.json"):
        export_run(own_run, tmp_path / "exports")
