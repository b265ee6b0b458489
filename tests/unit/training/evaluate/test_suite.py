import dataclasses
import math

import numpy as np
import pytest
import torch

from latentserve_training.evaluate import metric as metric_module
from latentserve_training.evaluate.metric import Metric, Subject
from latentserve_training.evaluate.reconstruction import psnr_db
from latentserve_training.evaluate.suite import evaluate, metric_function
from latentserve_training.metrics.baselines import fit_pca, to_rows
from latentserve_training.models.registry import KINDS
from latentserve_training.pixels import to_float
from latentserve_training.train.loop import build_model


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_metric_of_a_kind_is_computed(kind, make_config, image_data):
    model = build_model(make_config(kind), image_data.image_shape)
    metrics = evaluate(model, image_data)
    without_classifier = ("test_classes_covered", "test_histogram_kl")  # need a classifier
    assert list(metrics) == [name for name in model.metrics if name not in without_classifier]
    for metric in metrics.values():
        assert math.isfinite(metric.value)
        assert metric.baseline_value is None or math.isfinite(metric.baseline_value)
        assert metric.samples == len(image_data.test)


def test_mse_is_the_mean_over_all_pixels(make_config, image_data, monkeypatch):
    monkeypatch.setattr(metric_module, "BATCH", 7)  # does not divide the 60 test images
    model = build_model(make_config(), image_data.image_shape)
    images = to_float(image_data.test)
    with torch.inference_mode():
        expected = (model.reconstruct(images) - images).square().mean().item()

    metric = evaluate(model, image_data)["test_mse"]

    assert metric.value == pytest.approx(expected, rel=1e-5)
    assert metric.baseline_name == "PCA-3"


def test_the_baseline_of_a_sparse_model_has_as_many_latents_as_active_units(
    make_config, image_data
):
    top_k = build_model(make_config("sparse"), image_data.image_shape)
    l1 = build_model(make_config("sparse", model={"sparsity": "l1"}), image_data.image_shape)
    assert evaluate(top_k, image_data)["test_mse"].baseline_name == "PCA-2"
    assert evaluate(l1, image_data)["test_mse"].baseline_name == "PCA-6"


def test_metrics_of_a_sparse_model_are_computed_from_its_latents(make_config, image_data):
    model = build_model(make_config("sparse"), image_data.image_shape)
    with torch.no_grad():
        model.layer.code_bias[:2] = torch.tensor([100.0, -100.0])  # always awake, never awake
        code = model.encode(to_float(image_data.test))
    metrics = evaluate(model, image_data)
    assert metrics["test_share_of_zeros"].value == pytest.approx(4 / 6)
    dead = sum(not code[:, unit].any() for unit in range(6))
    assert metrics["test_dead_units"].value == dead >= 1


def test_the_probe_classifies_the_probe_features(make_config, image_data, monkeypatch):
    config = make_config("sparse", model={"active": 2, "probe_active": 5})
    model = build_model(config, image_data.image_shape)
    monkeypatch.setattr(model, "probe_features", which_half_is_brighter)
    metrics = evaluate(model, image_data)
    assert metrics["test_probe_accuracy"].value == 100.0
    assert (
        "the 5 largest of each image instead of the 2" in metrics["test_probe_accuracy"].estimator
    )
    assert metrics["test_share_of_zeros"].value == pytest.approx(4 / 6)


def which_half_is_brighter(images):
    left, right = images.flatten(2).sum(1).unflatten(1, images.shape[2:]).sum(1).chunk(2, dim=1)
    return (right.sum(1) - left.sum(1)).sign()[:, None]


def test_the_jacobian_has_a_plain_autoencoder_as_baseline(make_config, image_data):
    model, plain = (
        build_model(make_config("contractive", model=weight), image_data.image_shape)
        for weight in ({"penalty_weight": 0.1}, {"penalty_weight": 0.0})
    )
    with torch.no_grad():
        plain.network.rows *= 2
    images = to_float(image_data.test)
    metrics = evaluate(model, image_data, plain)
    for name, of in (("value", model), ("baseline_value", plain)):
        with torch.inference_mode():
            error = (of.reconstruct(images) - images).square().mean().item()
            norm = of.jacobian_norm(images).mean().item()
        assert getattr(metrics["test_jacobian"], name) == pytest.approx(norm, rel=1e-5)
        assert getattr(metrics["test_mse_beside_plain"], name) == pytest.approx(error, rel=1e-5)


def test_baselines_use_training_and_validation_images_only(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape)
    rows = to_rows(image_data.test)
    seen = torch.cat([image_data.train, image_data.validation])
    expected = np.square(fit_pca(seen).reconstruct(rows, 3) - rows).mean()
    assert evaluate(model, image_data)["test_mse"].baseline_value == pytest.approx(expected)


def test_the_identity_has_the_psnr_of_the_noise(make_config, image_data, monkeypatch):
    model = build_model(make_config("denoising"), image_data.image_shape)
    monkeypatch.setattr(model, "reconstruct", lambda images: images)
    metrics = evaluate(model, image_data)
    expected = -10 * math.log10(0.5**2)
    assert metrics["test_psnr_db"].value == pytest.approx(expected, abs=0.1)
    clipped = metrics["test_psnr_clipped_input_db"]
    assert clipped.value == clipped.baseline_value > expected
    assert not clipped.beats_baseline


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper"])
def test_masking_has_the_corrupted_images_as_baseline(
    corruption, make_config, image_data, monkeypatch
):
    config = make_config("denoising", model={"corruption": corruption, "corrupted_share": 0.2})
    model = build_model(config, image_data.image_shape)
    monkeypatch.setattr(model, "reconstruct", lambda images: images)
    metrics = evaluate(model, image_data)
    assert tuple(metrics) == ("test_psnr_db",), "there is nothing to clip"
    assert metrics["test_psnr_db"].value == metrics["test_psnr_db"].baseline_value
    assert "0.2 of the pixels set to 0" in metrics["test_psnr_db"].estimator


def test_each_level_of_noise_is_a_separate_metric(make_config, image_data, monkeypatch):
    config = make_config("denoising", model={"noise_sigma": 0.5, "measured_levels": [0.2, 0.05]})
    model = build_model(config, image_data.image_shape)
    monkeypatch.setattr(model, "reconstruct", lambda images: images)
    metrics = evaluate(model, image_data)
    assert tuple(metrics) == (
        "test_psnr_db",
        "test_psnr_clipped_input_db",
        "test_psnr_db_at_0.2",
        "test_psnr_db_at_0.05",
        "test_psnr_clipped_input_db_at_0.2",
        "test_psnr_clipped_input_db_at_0.05",
    )
    for sigma in (0.2, 0.05):
        metric = metrics[f"test_psnr_db_at_{sigma}"]
        assert metric.value == pytest.approx(-20 * math.log10(sigma), abs=0.1)
        assert f"white noise of σ {sigma} added" in metric.estimator
        clipped = metrics[f"test_psnr_clipped_input_db_at_{sigma}"]
        assert clipped.value == clipped.baseline_value > metric.value
        assert f"white noise of σ {sigma} added" in clipped.estimator


def test_the_wiener_filter_uses_the_measured_level(make_config, image_data):
    config = make_config("denoising", model={"noise_sigma": 0.5, "measured_levels": [0.2]})
    model, clean = build_model(config, image_data.image_shape), to_float(image_data.test)
    noisy = model.corrupt(clean, torch.Generator().manual_seed(metric_module.NOISE_SEED), 0.2)
    filtered = Subject(model, image_data).pca.wiener_filter(noisy.flatten(1).double().numpy(), 0.2)
    expected = psnr_db(filtered, clean.flatten(1).double().numpy())
    metrics = evaluate(model, image_data)
    assert metrics["test_psnr_db_at_0.2"].baseline_value == pytest.approx(expected)
    assert metrics["test_psnr_db"].baseline_value < expected - 2


def test_an_unknown_metric_is_an_error():
    with pytest.raises(KeyError, match="test_beauty"):
        metric_function("test_beauty_at_0.2")


def test_wiener_baseline_beats_the_noise(make_config, image_data):
    model = build_model(make_config("denoising"), image_data.image_shape)
    metrics = evaluate(model, image_data)
    noise = metrics["test_psnr_clipped_input_db"].baseline_value
    assert metrics["test_psnr_db"].baseline_value > noise + 3


def test_elbo_is_that_of_the_losses(make_config, image_data):
    model = build_model(make_config("vae"), image_data.image_shape)
    with torch.inference_mode():
        draws = [
            -model.losses(to_float(image_data.test), torch.Generator().manual_seed(seed))["loss"]
            for seed in range(50)
        ]
    metric = evaluate(model, image_data)["test_elbo_nats"]
    assert metric.value == pytest.approx(torch.stack(draws).mean().item(), rel=1e-3)


def test_psnr_of_a_known_error():
    assert psnr_db(np.full((2, 5), 0.1), np.zeros((2, 5))) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("higher_is_better", "value", "expected"),
    [(True, 2.0, True), (True, 0.5, False), (False, 2.0, False), (False, 0.5, True)],
)
def test_beating_a_baseline_has_a_direction(higher_is_better, value, expected):
    metric = Metric(value, "dB", higher_is_better, "one", 1.0, 10, "by hand")
    assert metric.beats_baseline is expected
    assert metric.as_manifest()["baseline"] == {"name": "one", "value": 1.0}


def test_without_a_baseline_there_is_nothing_to_beat():
    metric = Metric(2.0, "of 5 units", False, None, None, 10, "by hand")
    assert metric.beats_baseline is None
    assert metric.as_manifest()["baseline"] is None


def test_without_labels_the_probe_is_left_out(make_config, image_data):
    model = build_model(make_config("sparse"), image_data.image_shape)
    metrics = evaluate(model, dataclasses.replace(image_data, labels=None))
    assert model.metrics[:2] == ("test_mse", "test_probe_accuracy")
    assert tuple(metrics) == ("test_mse", *model.metrics[2:])
