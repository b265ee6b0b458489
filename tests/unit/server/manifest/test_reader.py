"""Manifest reader: only a model folder that matches its manifest is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import Metric, MixtureSpec, read_manifest

Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.write_model(tmp_path / "exports", "tiny")


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as refused:
        read_manifest(folder)
    reason = str(refused.value)
    assert "\n" not in reason
    assert len(reason) < 1000
    return reason


# --- valid manifests --------------------------------------------------------------------------


def test_a_valid_manifest_is_read(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.version, manifest.kind) == ("tiny", 1, "vae")
    assert manifest.image.shape == (1, tiny_models.SIZE, tiny_models.SIZE)
    assert manifest.image.values == tiny_models.PIXELS
    assert (manifest.latent_dim, manifest.prior) == (tiny_models.DIM, "standard_normal")
    assert set(manifest.operations) == {"encode", "decode", "reconstruct", "sample"}
    assert manifest.operations["encode"].outputs == ("mean", "log_variance")
    assert (manifest.likelihood_family, manifest.likelihood_sigma) == ("gaussian", 0.1)
    assert manifest.metrics == (
        Metric(
            name="test_mse",
            value=0.25,
            unit="squared error per pixel",
            baseline=0.5,
            baseline_name="PCA-3",
            samples=2,
            estimator="mean over two random images",
        ),
    )


def test_the_digest_is_the_sha256_of_the_manifest(folder: Path) -> None:
    before = read_manifest(folder).digest
    assert before == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    document = tiny_models.read_manifest(folder)
    document["description"] += " Changed."
    tiny_models.write_manifest(folder, document)
    assert read_manifest(folder).digest != before


def test_a_mixture_and_its_golden_samples_are_read(tmp_path: Path) -> None:
    folder = tiny_models.write_model(tmp_path, "tiny", kind="autoencoder", with_mixture=True)
    manifest = read_manifest(folder)
    assert manifest.prior == "gaussian_mixture"
    assert manifest.mixture == MixtureSpec("prior.npz", 3)
    assert manifest.golden.sample_seed == tiny_models.SAMPLE_SEED


def test_a_manifest_without_mixture_has_none(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest.mixture, manifest.golden.sample_seed) == (None, None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("vae", True), ("autoencoder", False), ("gan", False)],
)
def test_whether_there_is_a_log_variance_follows_from_the_encoder(
    tmp_path: Path, kind: str, expected: bool
) -> None:
    manifest = read_manifest(tiny_models.write_model(tmp_path, "tiny", kind=kind))
    assert manifest.has_log_variance is expected


@pytest.mark.parametrize(
    ("operation", "takes_latents", "gives_latents"),
    [
        ("encode", False, True),
        ("decode", True, False),
        ("sample", True, False),
        ("reconstruct", False, False),
        ("denoise", False, False),
    ],
)
def test_the_rows_of_each_operation(
    folder: Path, operation: str, takes_latents: bool, gives_latents: bool
) -> None:
    manifest = read_manifest(folder)
    latent, image = (tiny_models.DIM,), (1, tiny_models.SIZE, tiny_models.SIZE)
    assert manifest.input_shape(operation) == (latent if takes_latents else image)
    assert manifest.output_shape(operation) == (latent if gives_latents else image)


def test_a_model_without_likelihood_and_a_metric_without_baseline_are_read(folder: Path) -> None:
    document = tiny_models.read_manifest(folder)
    document["likelihood"] = None
    document["metrics"]["test_mse"]["baseline"] = None
    tiny_models.write_manifest(folder, document)
    manifest = read_manifest(folder)
    assert (manifest.likelihood_family, manifest.likelihood_sigma) == ("", 0.0)
    assert (manifest.metrics[0].baseline, manifest.metrics[0].baseline_name) == (None, "")


# --- invalid manifests ------------------------------------------------------------------------


def _set(path: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split("/")
        target = document
        for parent in parents:
            target = target[parent]
        target[last] = value

    return change


def _drop(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *parents, last = path.split("/")
        target = document
        for parent in parents:
            target = target[parent]
        del target[last]

    return change


MIXTURE = {"file": "prior.npz", "components": 3}

INVALID: dict[str, tuple[Callable[[Document], object], list[str]]] = {
    "an unknown field": (_set("colour", "blue"), ["colour"]),
    "an unknown field deep inside": (_set("image/depth", 8), ["$.image", "depth"]),
    "a schema version of the future": (_set("schema_version", 2), ["$.schema_version", "1"]),
    "an unknown kind": (_set("kind", "diffusion"), ["$.kind", "diffusion"]),
    "no operation": (_set("operations", {}), ["$.operations"]),
    "an unknown operation": (
        _set("operations/dream", {"file": "decode.onnx", "inputs": ["z"], "outputs": ["x"]}),
        ["$.operations", "dream"],
    ),
    "two inputs of one operation": (
        _set("operations/decode/inputs", ["latents", "labels"]),
        ["$.operations.decode.inputs"],
    ),
    "two channels": (_set("image/channels", 2), ["$.image.channels", "2"]),
    "a latent dimension of zero": (_set("latent/dim", 0), ["$.latent.dim", "0"]),
    "a version of zero": (_set("version", 0), ["$.version", "0"]),
    "a version that is text": (_set("version", "1"), ["$.version", "'1'"]),
    "a name with capitals": (_set("name", "Tiny"), ["$.name", "Tiny"]),
    "a sigma of zero": (_set("likelihood/sigma", 0), ["$.likelihood"]),
    "a tolerance that allows anything": (_set("golden/tolerance", 10), ["$.golden.tolerance"]),
    "a file in a folder above": (
        _set("operations/decode/file", "../decode.onnx"),
        ["$.operations.decode.file", "../decode.onnx"],
    ),
    "an absolute file": (_set("golden/file", "/golden.npz"), ["$.golden.file", "/golden.npz"]),
    "a checksum that is none": (
        _set("files/golden.npz", {"sha256": "abc", "bytes": 1}),
        ["golden.npz", "abc"],
    ),
    "another name than its folder": (
        _set("name", "other"),
        ["says other version 1", "its folder is tiny/1"],
    ),
    "another version than its folder": (
        _set("version", 2),
        ["says tiny version 2", "its folder is tiny/1"],
    ),
    "a graph that is not listed": (
        _drop("files/reconstruct.onnx"),
        ["operations.reconstruct", "reconstruct.onnx", "not listed in files"],
    ),
    "golden outputs that are not listed": (
        _drop("files/golden.npz"),
        ["golden", "golden.npz", "not listed in files"],
    ),
    "sample without a prior": (_set("latent/prior", "none"), ["sample", "prior"]),
    "a mixture of a standard-normal prior": (
        _set("latent/mixture", MIXTURE),
        ["$.latent", "mixture"],
    ),
    "a mixture that is not there": (
        _set("latent/prior", "gaussian_mixture"),
        ["$.latent", "'mixture' is a required property"],
    ),
    "a mixture of no component": (
        _set(
            "latent",
            {"dim": 3, "prior": "gaussian_mixture", "mixture": {**MIXTURE, "components": 0}},
        ),
        ["$.latent.mixture.components", "0"],
    ),
    "a mixture that is not listed": (
        _set("latent", {"dim": 3, "prior": "gaussian_mixture", "mixture": MIXTURE}),
        ["latent.mixture names prior.npz", "not listed in files"],
    ),
    "a mixture too large for the memory": (
        _set(
            "latent",
            {"dim": 65536, "prior": "gaussian_mixture", "mixture": {**MIXTURE, "components": 1}},
        ),
        ["latent.mixture has 4294967296 values", "the maximum is 4194304"],
    ),
    "a golden seed beyond 64 bits": (
        _set("golden/sample_seed", 2**64),
        ["$.golden.sample_seed", str(2**64)],
    ),
    "a golden seed of a model that does not sample": (
        lambda document: [
            _drop("operations/sample")(document),
            _set("golden/sample_seed", 1)(document),
        ],
        ["golden.sample_seed", "no operation sample"],
    ),
    "golden without one input": (
        _set("golden/inputs/decode", {}),
        ["golden", "decode", "latents"],
    ),
    "golden without one output": (
        _drop("golden/outputs/encode/log_variance"),
        ["golden", "encode", "log_variance"],
    ),
    "golden without one operation": (
        _drop("golden/outputs/reconstruct"),
        ["golden", "reconstruct", "reconstruction"],
    ),
    "golden with a tensor too many": (
        _set("golden/outputs/decode/extra", "decode.images"),
        ["golden", "decode", "extra"],
    ),
    "the wrong size of a file": (
        _set("files/golden.npz/bytes", 7),
        ["golden.npz has", "bytes", "says 7"],
    ),
    "the wrong checksum of a file": (
        _set("files/decode.onnx/sha256", "0" * 64),
        ["decode.onnx has SHA-256", "says 0000"],
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_manifest_is_refused_with_the_invalid_field(folder: Path, case: str) -> None:
    change, parts = INVALID[case]
    document = tiny_models.read_manifest(folder)
    change(document)
    tiny_models.write_manifest(folder, document, list_files=False)
    reason = refusal(folder)
    for part in parts:
        assert part in reason


REQUIRED = [
    "schema_version",
    "name",
    "version",
    "kind",
    "description",
    "image",
    "latent",
    "operations",
    "likelihood",
    "files",
    "golden",
    "training",
    "metrics",
]


@pytest.mark.parametrize(
    "path",
    [
        *REQUIRED,
        "image/width",
        "latent/prior",
        "golden/tolerance",
        "operations/decode/file",
        "files/golden.npz/sha256",
        "metrics/test_mse/baseline",
        "training/data/sha256",
    ],
)
def test_a_missing_field_is_named(folder: Path, path: str) -> None:
    document = tiny_models.read_manifest(folder)
    _drop(path)(document)
    tiny_models.write_manifest(folder, document, list_files=False)
    assert repr(path.rpartition("/")[2]) in refusal(folder)


def test_the_reason_counts_the_errors_that_it_does_not_show(folder: Path) -> None:
    document = tiny_models.read_manifest(folder)
    for field in ("kind", "golden", "training"):
        del document[field]
    tiny_models.write_manifest(folder, document, list_files=False)
    assert "and 2 more" in refusal(folder)


# --- files that are not manifests -------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"GIF89a", "not JSON"),
        (b"[]", "not of type 'object'"),
        (b"null", "not of type 'object'"),
        (b"[" * 100_000, "manifest.json"),
    ],
    ids=["empty", "cut off", "not UTF-8", "no text", "a list", "null", "nested without end"],
)
def test_a_file_that_is_no_manifest_is_refused(folder: Path, content: bytes, part: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert part in refusal(folder)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "1"
    folder.mkdir(parents=True)
    assert "manifest.json cannot be read" in refusal(folder)


def test_a_manifest_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "1"
    (folder / "manifest.json").mkdir(parents=True)
    assert "manifest.json cannot be read" in refusal(folder)


def test_a_huge_manifest_is_refused_before_it_is_read(folder: Path) -> None:
    path = folder / "manifest.json"
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no space, but reading it would take a terabyte
    assert re.search(r"manifest\.json is larger than \d+ bytes", refusal(folder))


# --- files that do not match the manifest -----------------------------------------------------


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    assert "golden.npz cannot be read" in refusal(folder)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    (folder / "golden.npz").mkdir()
    assert "golden.npz" in refusal(folder)


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "encode.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    reason = refusal(folder)
    assert "encode.onnx has SHA-256" in reason
    assert hashlib.sha256(content).hexdigest() in reason


def test_a_link_out_of_the_folder_is_refused_although_its_content_is_right(folder: Path) -> None:
    path = folder / "decode.onnx"
    outside = folder.parent / "decode.onnx"
    path.rename(outside)
    path.symlink_to(outside)
    assert "decode.onnx leads out of the model's folder" in refusal(folder)


def test_a_link_to_a_file_beside_it_is_allowed(folder: Path) -> None:
    path = folder / "decode.onnx"
    path.rename(folder / "weights.bin")
    path.symlink_to("weights.bin")
    assert read_manifest(folder).operations["decode"].file == "decode.onnx"


def test_a_version_folder_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "volume"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert read_manifest(folder).version == 1


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    path = folder / "decode.onnx"
    path.unlink()
    path.symlink_to("decode.onnx")
    assert "decode.onnx" in refusal(folder)


def test_a_manifest_is_plain_json(folder: Path) -> None:
    """NaN is not JSON, but Python's parser accepts it by default."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    document["metrics"]["test_mse"]["value"] = float("nan")
    path.write_text(json.dumps(document), "utf-8")
    assert "NaN" in refusal(folder)


def test_a_file_is_used_only_with_the_checked_content(folder: Path) -> None:
    """A file that changes after the check of its SHA-256 is refused when it is loaded."""
    manifest = read_manifest(folder)
    content = (folder / "decode.onnx").read_bytes()
    assert manifest.read_file("decode.onnx") == content
    (folder / "decode.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ManifestError, match=r"decode\.onnx has SHA-256"):
        OnnxEngine(manifest, CPU, threads=1)
    (folder / "decode.onnx").write_bytes(content)
    golden = (folder / "golden.npz").read_bytes()
    (folder / "golden.npz").write_bytes(golden[::-1])
    engine = OnnxEngine(manifest, CPU, threads=1)
    with pytest.raises(ManifestError, match=r"golden\.npz has SHA-256"):
        engine.check_golden()


def test_a_file_that_turns_into_a_pipe_blocks_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the check of its type, and before it is opened."""
    regular = (folder / "manifest.json").stat()
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    monkeypatch.setattr(Path, "stat", lambda path, **options: regular)
    with pytest.raises(ManifestError, match="not a regular file"):
        read_manifest(folder)
