import logging

import pytest
import torch

from latentserve_training.metrics.classifier import load_classifier
from latentserve_training.metrics.frechet import frechet_distance
from latentserve_training.models.sample_monitor import SampleMonitor
from latentserve_training.pixels import to_float


@pytest.fixture(scope="module")
def monitor(image_data):
    fitted = SampleMonitor(image_data.image_shape, "pixels")
    fitted.fit(image_data.train)
    return fitted


@pytest.fixture
def classifying(image_data, classifier_file):
    watching = SampleMonitor(image_data.image_shape, "pixels")
    watching.classifier = load_classifier(classifier_file)
    return watching


def test_real_images_as_samples_reach_the_limit_of_the_metrics(monitor, image_data, caplog):
    quality = monitor.compare(image_data.validation, to_float(image_data.test))
    assert quality.coverage > 0.8
    assert 0.7 < quality.diversity < 1.4
    assert quality.classes_covered is None
    with caplog.at_level(logging.WARNING):
        quality.warn()
    assert not caplog.records


def test_identical_samples_are_reported_as_collapse(monitor, image_data, caplog):
    samples = to_float(image_data.test[:1]).expand(200, -1, -1, -1)
    quality = monitor.compare(image_data.validation, samples)
    assert quality.diversity < 0.01
    assert quality.coverage < 0.3
    with caplog.at_level(logging.WARNING):
        quality.warn()
    assert "the samples have collapsed: their variance is 0.00 times" in caplog.text


def test_a_missing_class_is_reported_as_collapse(classifying, image_data, caplog):
    whole = classifying.compare(image_data.validation, to_float(image_data.test))
    assert (whole.classes_covered, whole.classes) == (2, 2)
    left = classifying.classifier.embed(image_data.test).classes == 0
    quality = classifying.compare(image_data.validation, to_float(image_data.test[left]))
    assert quality.classes_covered == 1
    with caplog.at_level(logging.WARNING):
        quality.warn()
    assert "they show 1 of 2 classes" in caplog.text
    assert quality.as_losses()["classes_covered"] == 1.0


def test_the_loss_rises_with_defects_of_the_samples(monitor, image_data):
    images, generator = to_float(image_data.test), torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=generator)

    def loss(samples):
        return monitor.compare(image_data.validation, samples).as_losses()["loss"]

    noisy = [loss((images + level * noise).clamp(0.0, 1.0)) for level in (0.0, 0.1, 0.3)]
    assert noisy == sorted(noisy)
    assert loss(images[:10].repeat(6, 1, 1, 1)) > noisy[0]


def test_components_are_those_of_the_pixels(image_data):
    """All components keep every distance, so the Fréchet distance is that of the pixels."""
    shape = (1, 4, 4)
    images = image_data.train[:, :, 4:8, 4:8]
    monitor = SampleMonitor(shape, "pixels")
    monitor.fit(images)
    samples = to_float(images[:80])
    expected = frechet_distance(to_float(images).flatten(1), samples.flatten(1))
    quality = monitor.compare(images, samples)
    assert quality.frechet_distance == pytest.approx(expected, rel=1e-3)


def test_the_fit_is_part_of_the_state_dict(monitor, image_data):
    other = SampleMonitor(image_data.image_shape, "pixels")
    other.load_state_dict(monitor.state_dict())
    samples = to_float(image_data.test)
    assert other.compare(image_data.validation, samples) == monitor.compare(
        image_data.validation, samples
    )


def test_large_coloured_images_are_made_small_first():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (70, 3, 64, 48), generator=generator, dtype=torch.uint8)
    monitor = SampleMonitor((3, 64, 48), "pixels", longest_side=8)
    monitor.fit(images)
    quality = monitor.compare(images[:40], to_float(images[40:]))
    assert 0.5 < quality.diversity < 1.5


def test_the_classifier_must_fit_the_images():
    with pytest.raises(ValueError, match="set monitor to 'pixels'"):
        SampleMonitor((1, 12, 12), "classifier")
    assert SampleMonitor((1, 28, 28), "classifier").classifier.classes == 10
