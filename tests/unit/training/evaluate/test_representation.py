import dataclasses

import pytest
import torch

from latentserve_training.evaluate.metric import Subject
from latentserve_training.evaluate.representation import METRICS
from latentserve_training.evaluate.suite import measure
from latentserve_training.metrics.baselines import fit_pca
from latentserve_training.metrics.neighbours import vote_of_nearest
from latentserve_training.pixels import to_float
from latentserve_training.train.loop import build_model


@pytest.fixture
def subject(make_config, image_data):
    return Subject(build_model(make_config(), image_data.image_shape).eval(), image_data)


def test_the_vote_is_of_all_training_images(subject, image_data):
    metric = measure(subject, ["test_knn_accuracy"])["test_knn_accuracy"]
    with torch.inference_mode():
        points, queries = (
            subject.model.encode(to_float(images))
            for images in (image_data.all_train, image_data.test)
        )
    votes = vote_of_nearest(queries, points, image_data.labels.all_train, 5)
    expected = 100 * (votes == image_data.labels.test).double().mean().item()
    assert metric.value == pytest.approx(expected)
    assert metric.samples == 60


def test_the_baseline_is_the_better_of_pixels_and_pca(subject, image_data):
    metric = measure(subject, ["test_knn_accuracy"])["test_knn_accuracy"]
    pca = fit_pca(image_data.all_train)
    accuracies = {}
    for name, encode in (
        ("the pixels", lambda rows: rows),
        ("PCA-3 codes", lambda rows: torch.from_numpy(pca.coordinates(rows.double().numpy(), 3))),
    ):
        points, queries = (
            encode(to_float(images).flatten(1))
            for images in (image_data.all_train, image_data.test)
        )
        votes = vote_of_nearest(queries, points, image_data.labels.all_train, 5)
        accuracies[name] = 100 * (votes == image_data.labels.test).double().mean().item()
    best = max(accuracies, key=accuracies.get)
    assert metric.baseline_name == f"the same classifier of {best}"
    assert metric.baseline_value == pytest.approx(accuracies[best])
    for name, accuracy in accuracies.items():
        assert f"of {name} {accuracy:.2f} %" in metric.estimator


def test_latents_of_noise_have_chance_accuracy(subject, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        subject.model, "encode", lambda images: torch.randn(len(images), 3, generator=generator)
    )
    for name, metric in measure(subject, METRICS).items():
        assert metric.value < 75 < metric.baseline_value, name
        assert not metric.beats_baseline


def test_without_labels_there_is_no_accuracy(subject, image_data):
    without = dataclasses.replace(subject, data=dataclasses.replace(image_data, labels=None))
    assert measure(without, METRICS) == {}


def test_latents_of_a_vae_are_posterior_means(make_config, image_data):
    model = build_model(make_config("vae"), image_data.image_shape).eval()
    metrics = measure(Subject(model, image_data), METRICS)
    assert metrics["test_probe_accuracy"].value > 60
