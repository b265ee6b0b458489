import dataclasses
import math

import pytest
import torch

from latentserve_training.evaluate.features import Comparison
from latentserve_training.evaluate.generation import METRICS, divergence
from latentserve_training.evaluate.metric import Subject
from latentserve_training.metrics.classifier import Embedding, load_classifier
from latentserve_training.metrics.frechet import frechet_distance
from latentserve_training.metrics.neighbours import set_overlap
from latentserve_training.models.base import SAMPLE_METRICS
from latentserve_training.pixels import to_float
from latentserve_training.train.loop import build_model


class Copies:
    """Replacement for a VAE whose samples are given images, independent of the latents."""

    prior = "standard_normal"

    def __init__(self, images, image_shape):
        self.images, self.image_shape = to_float(images), image_shape

    def sample_latents(self, count, generator):
        return torch.randint(0, len(self.images), (count, 1), generator=generator)

    def decode(self, latents):
        return self.images[latents[:, 0]]

    def reconstruct(self, images):
        return images


@pytest.fixture
def subject_of(image_data, classifier_file):
    def make(images, samples=200, **changes):
        data = dataclasses.replace(image_data, **changes)
        classifier = load_classifier(classifier_file)
        return Subject(Copies(images, data.image_shape), data, None, classifier, samples)

    return make


def measure(name, subject):
    with torch.inference_mode():
        return METRICS[name](subject)


def test_every_kind_with_a_prior_can_have_all_of_them():
    assert set(SAMPLE_METRICS) == set(METRICS) - {"test_reconstruction_frechet"}


def test_metrics_are_computed_from_the_features(subject_of, image_data, classifier_file):
    subject = subject_of(image_data.validation)
    classifier = load_classifier(classifier_file)
    test = classifier.embed(image_data.test).features
    train = subject.comparison.train
    generated = subject.comparison.generated
    assert len(test) == len(train) == len(generated) == 60
    rows = {tuple(row) for row in classifier.embed(image_data.all_train).features.tolist()}
    assert {tuple(row) for row in train.tolist()} <= rows

    metric = measure("test_frechet_distance", subject)
    assert metric.value == pytest.approx(frechet_distance(test, generated))
    assert metric.baseline_value == pytest.approx(frechet_distance(test, train))
    assert metric.beats_baseline is None, "real images are no rival"
    for name in ("precision", "recall", "density", "coverage"):
        metric = measure(f"test_{name}", subject)
        assert metric.value == getattr(set_overlap(test, generated, 5), name)
        assert metric.baseline_value == getattr(set_overlap(test, train, 5), name)
        assert (metric.samples, metric.baseline_name) == (60, "real images")
        assert "blobs" in metric.estimator
        assert classifier.card["sha256"][:12] in metric.estimator


def test_the_metrics_detect_a_collapsed_model(subject_of, image_data):
    whole, collapsed = subject_of(image_data.validation), subject_of(image_data.validation[:1])
    for name, metric in (("recall", "test_recall"), ("coverage", "test_coverage")):
        assert measure(metric, collapsed).value < 0.2 < measure(metric, whole).value, name
    distances = [measure("test_frechet_distance", each).value for each in (whole, collapsed)]
    assert distances[1] > 3 * distances[0]
    assert measure("test_classes_covered", collapsed).value == 1
    assert measure("test_classes_covered", whole).value == 2
    assert measure("test_histogram_kl", whole).value < 0.1
    share = whole.comparison.train_shares[
        whole.comparison.class_shares(collapsed.comparison.sampled).argmax()
    ]
    assert measure("test_histogram_kl", collapsed).value == pytest.approx(-math.log(share))


def test_a_class_counts_from_a_tenth_of_an_even_share(subject_of, image_data):
    subject = subject_of(image_data.validation, samples=1000)
    classes = torch.zeros(1000, dtype=torch.int64)
    for rare, expected in ((49, 1), (50, 2)):  # 0.1 / 2 classes = 5 %
        classes[:] = 0
        classes[:rare] = 1
        subject.comparison.sampled = Embedding(torch.zeros(1000, 5), classes)
        assert measure("test_classes_covered", subject).value == expected


def test_divergence_of_histograms():
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert divergence(half, half) == 0
    certain = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert divergence(certain, half) == pytest.approx(math.log(2))


def test_samples_are_reproducible(subject_of, image_data):
    first, second = (subject_of(image_data.validation).comparison.generated for _ in range(2))
    assert torch.equal(first, second)


def test_a_perfect_reconstruction_has_no_distance(subject_of, image_data):
    metric = measure("test_reconstruction_frechet", subject_of(image_data.validation))
    assert abs(metric.value) < 1e-6 < metric.baseline_value


def test_classes_are_measured_only_where_the_classifier_is_right(subject_of, image_data):
    wrong = dataclasses.replace(image_data.labels, test=1 - image_data.labels.test)
    for changes, known in (
        ({}, True),
        ({"labels": wrong}, False),
        ({"labels": None}, True),  # of the name that the classifier was trained on
        ({"labels": None, "name": "other"}, False),
    ):
        subject = subject_of(image_data.validation, **changes)
        assert subject.comparison.classes_are_reliable is known
        for name in ("test_classes_covered", "test_histogram_kl"):
            assert (measure(name, subject) is not None) is known


def test_without_a_classifier_principal_components_are_the_features(make_config, image_data):
    model = build_model(make_config("vae"), image_data.image_shape).eval()
    subject = Subject(model, image_data, samples=100)
    metric = measure("test_frechet_distance", subject)
    assert math.isfinite(metric.value)
    assert "first 64 principal components" in metric.estimator
    assert "--classifier" in metric.estimator
    assert subject.comparison.test.shape == (60, 64)
    assert measure("test_classes_covered", subject) is None


def test_all_sets_are_as_large_as_the_smallest(image_data, classifier_file):
    classifier = load_classifier(classifier_file)
    model = Copies(image_data.test, image_data.image_shape)
    for samples, expected in ((20, 20), (500, 60)):
        assert Comparison(model, image_data, classifier, samples).count == expected
    few = dataclasses.replace(image_data, train=image_data.train[:10])
    assert Comparison(model, few, classifier, 500).count == 50
