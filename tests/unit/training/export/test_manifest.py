import copy

import pytest

from latentserve_training.errors import ExportError
from latentserve_training.export.manifest import (
    build_manifest,
    describe,
    load_schema,
    validate_manifest,
)
from latentserve_training.train.loop import build_model


@pytest.fixture
def manifest(make_config):
    config = make_config("vae")
    model = build_model(config, (1, 12, 12))
    graphs = model.graphs()
    file = {"sha256": "a" * 64, "bytes": 5}
    evaluation = {
        "data": {"name": "blobs", "sha256": "b" * 64, "train_samples": 160},
        "metrics": {
            "test_mse": {
                "value": 0.1,
                "unit": "squared error per pixel",
                "higher_is_better": False,
                "baseline": {"name": "PCA-3", "value": 0.2},
                "samples": 60,
                "estimator": "by hand",
            }
        },
    }
    files = {graph.file: file for graph in graphs} | {"golden.npz": file}
    return build_manifest(config, model, graphs, 4, files, evaluation, {"torch": "2"}, "abc")


def test_a_manifest_follows_the_schema(manifest):
    validate_manifest(manifest)


def test_operations_name_their_graph_inputs_and_outputs(manifest):
    assert manifest["operations"] == {
        "encode": {
            "file": "encode.onnx",
            "inputs": ["images"],
            "outputs": ["mean", "log_variance"],
        },
        "decode": {"file": "decode.onnx", "inputs": ["latents"], "outputs": ["images"]},
        "sample": {"file": "decode.onnx", "inputs": ["latents"], "outputs": ["images"]},
        "reconstruct": {
            "file": "reconstruct.onnx",
            "inputs": ["images"],
            "outputs": ["reconstruction"],
        },
    }


def test_the_description_is_one_sentence(manifest):
    assert manifest["description"] == (
        "Variational autoencoder (Gaussian, learned σ) with 3 latents for 12×12 images, "
        "trained on 160 images of blobs."
    )


def test_the_description_says_that_images_are_in_colour(make_config):
    config = make_config()
    evaluation = {"data": {"name": "blobs", "train_samples": 160}}
    description = describe(config, build_model(config, (3, 12, 12)), evaluation)
    assert "for 12×12 RGB images" in description


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "Upper", r"\$\.name"),
        (("version",), 0, r"\$\.version"),
        (("kind",), "diffusion", r"\$\.kind"),
        (("latent", "dim"), 0, r"\$\.latent\.dim"),
        (("likelihood",), {"family": "gaussian"}, r"\$\.likelihood"),
        (("surprise",), 1, "surprise"),
        (("metrics", "test_mse", "value"), float("nan"), "the metric test_mse is nan"),
    ],
)
def test_mixtures_that_the_server_refuses_are_refused(manifest, path, value, message):
    broken = copy.deepcopy(manifest)
    parent = broken
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(ExportError, match=message):
        validate_manifest(broken)


def test_the_packaged_schema_is_a_valid_schema():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(load_schema())
