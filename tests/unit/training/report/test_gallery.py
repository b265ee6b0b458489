import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from latentserve_training.errors import DataError, ExportError
from latentserve_training.export.publish import export_run
from latentserve_training.nn.gaussian_mixture import LatentMixture
from latentserve_training.report import gallery
from latentserve_training.report.gallery import (
    choose_images,
    describe_headline,
    draw_gallery,
    draw_prior,
    read_manifests,
    show,
)

SHOWN = ("vae", "denoising")


@pytest.fixture(scope="module")
def exports(tmp_path_factory, finished_run):
    """Tiny exports of two kinds: to change them, copy them first."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in SHOWN:
        export_run(finished_run(kind), folder, revision="abc")
    return folder


@pytest.fixture
def shown(exports, image_data):
    @functools.cache
    def run(name):
        folder, manifest = next(each for each in read_manifests(exports) if each[1]["name"] == name)
        return dict(show(folder, manifest, choose_images(image_data)).strips)

    return run


def test_all_models_are_drawn_in_the_order_in_which_one_leads_to_the_next(
    exports, image_data, tmp_path
):
    path = tmp_path / "gallery.png"
    names = draw_gallery(exports, image_data, path)
    assert names == ["tiny-denoising", "tiny-vae"]
    pixels = imread(path)[..., :3]
    assert pixels.shape[1] == 1500
    assert 0.05 < (pixels < 0.9).any(axis=2).mean() < 0.98
    assert (pixels[:, -10:] == 1).all()  # nothing is cut off


def test_reconstructions_stand_below_the_images_and_samples_last(shown):
    assert list(shown("tiny-denoising")) == ["noisy", "denoised"]
    assert list(shown("tiny-vae")) == ["test image", "reconstruction", "samples"]
    assert len(shown("tiny-vae")["samples"]) == 10


def test_the_graphs_answer_as_the_model_does(shown, exports, finished_run, image_data):
    from latentserve_training.config import parse_config
    from latentserve_training.train.checkpoint import load_checkpoint
    from latentserve_training.train.trained_model import load_model

    checkpoint = load_checkpoint(finished_run("denoising").best)
    model = load_model(parse_config(checkpoint.config), checkpoint)
    strips = shown("tiny-denoising")
    noise = strips["noisy"] - choose_images(image_data)
    assert abs(noise.std() - model.noise_sigma) < 0.1
    with torch.inference_mode():
        expected = model.reconstruct(torch.from_numpy(strips["noisy"])).numpy()
    np.testing.assert_allclose(strips["denoised"], expected, atol=1e-5)


def test_the_first_image_of_each_class_is_shown(image_data):
    labels = image_data.labels.test
    images = choose_images(image_data)
    for side in (0, 1):
        first = image_data.test[labels.tolist().index(side)]
        assert np.array_equal(images[side], first.numpy() / np.float32(255))
    unlabelled = dataclasses.replace(image_data, labels=None)
    assert len(choose_images(unlabelled)) == 10


def test_the_highest_version_is_shown(exports, tmp_path):
    for version in ("2", "10"):
        folder = tmp_path / "tiny-vae" / version
        shutil.copytree(exports / "tiny-vae" / "1", folder)
    (tmp_path / "tiny-vae" / ".11-x").mkdir()
    (tmp_path / "tiny-vae" / "notes").mkdir()
    (folder, _), *others = read_manifests(tmp_path)
    assert folder.name == "10"
    assert not others


def metric(value, baseline=None, unit="share"):
    named = baseline and {"name": "the baseline", "value": baseline}
    return {"value": value, "unit": unit, "baseline": named}


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        (
            "denoising",
            {"test_mse": metric(0.1, 0.2), "test_psnr_db": metric(20.061, 17.51, "dB")},
            "PSNR: 20.06 dB\nthe baseline: 17.51 dB",
        ),
        (
            "vae",
            {"test_mse": metric(0.1, 0.2), "test_elbo_nats": metric(787.02, 264.5)},
            "ELBO: 787\nthe baseline: 264.5",
        ),
        (
            "of its own",
            {"test_dead_units": metric(0.0), "test_mse": metric(0.00312, 0.01683)},
            "squared error per pixel: 0.00312\nthe baseline: 0.01683",
        ),
        ("of its own", {"test_dead_units": metric(3.0)}, "dead units: 3"),
        ("of its own", {}, ""),
    ],
)
def test_the_headline_is_the_figure_that_tells_most(kind, metrics, expected):
    assert describe_headline({"kind": kind, "metrics": metrics}) == expected


def test_a_mixture_is_drawn_from_as_its_file_says(tmp_path):
    means = np.array([[10.0, 0.0], [-10.0, 5.0]], np.float32)
    factors = np.stack([0.1 * np.eye(2, dtype=np.float32)] * 2)
    mixture = LatentMixture(np.array([0.25, 0.75]), means, factors)
    (tmp_path / "prior.npz").write_bytes(mixture.to_bytes())
    named = {"file": "prior.npz", "components": 2}
    latent = {"dim": 2, "prior": "gaussian_mixture", "mixture": named}
    drawn = draw_prior(tmp_path, latent, 2000)
    assert drawn.dtype == np.float32
    first = drawn[drawn[:, 0] > 0]
    assert len(first) / len(drawn) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_allclose(first.mean(0), means[0], atol=0.05)


def test_an_unknown_prior_is_named(tmp_path):
    with pytest.raises(ExportError, match="prior 'flow' is not supported"):
        draw_prior(tmp_path, {"dim": 2, "prior": "flow"}, 3)


@pytest.mark.parametrize("folder", ["absent", "."])
def test_no_export_at_all_is_an_error(folder, tmp_path, image_data):
    with pytest.raises(ExportError, match="latentserve-training export"):
        draw_gallery(tmp_path / folder, image_data, tmp_path / "gallery.png")


def test_a_broken_manifest_and_a_broken_graph_are_named(exports, tmp_path, image_data):
    shutil.copytree(exports / "tiny-vae", tmp_path / "tiny-vae")
    graph = tmp_path / "tiny-vae" / "1" / "reconstruct.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ExportError, match="reconstruct fails"):
        draw_gallery(tmp_path, image_data, tmp_path / "gallery.png")
    (graph.parent / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ExportError, match=r"manifest\.json cannot be read"):
        draw_gallery(tmp_path, image_data, tmp_path / "gallery.png")


def test_images_of_another_shape_are_refused(exports, image_data, tmp_path):
    wide = dataclasses.replace(image_data, test=torch.zeros(3, 1, 16, 12, dtype=torch.uint8))
    wide = dataclasses.replace(wide, labels=None)
    with pytest.raises(DataError, match=r"takes images of 1×12×12 .* these have 1×16×12; .*--data"):
        draw_gallery(exports, wide, tmp_path / "gallery.png")


def test_the_command_draws_the_digits_that_are_at_hand(tmp_path, monkeypatch, capsys):
    from latentserve_training.__main__ import main

    drawn = []

    def draw(exports, data, path):
        drawn.append((exports, len(data.test), path))
        return ["a", "b"]

    monkeypatch.setattr(gallery, "draw_gallery", draw)
    out = tmp_path / "gallery.png"
    assert main(["gallery", "--exports", str(tmp_path), "--out", str(out)]) == 0
    assert drawn == [(tmp_path, 1000, out)]
    assert capsys.readouterr().out == f"{out}: a, b\n"


def test_metrics_of_exports_are_as_the_headline_expects_them(exports):
    for path in exports.glob("*/1/manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        assert "\n" in describe_headline(manifest)
