import pytest
import torch

from latentserve_training.metrics.linear_probe import fit_probe


def clusters(count, seed, spread=0.3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    centres = torch.tensor([[0.0, 0.0, 5.0], [4.0, 0.0, 5.0], [0.0, 4.0, 5.0]])
    return centres[labels] + spread * torch.randn(count, 3, generator=generator), labels


def test_classes_that_a_plane_divides_are_found():
    probe = fit_probe(*clusters(200, 0), *clusters(50, 3))
    assert probe.accuracy(*clusters(200, 1)) == 1.0


def test_classes_that_overlap_are_found_as_often_as_is_possible():
    # Two Gaussians at ±1 with σ 1: the best classifier is right in Φ(1) = 84.1 % of the cases.
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 2, (20_000,), generator=generator)
    features = 2.0 * labels[:, None] - 1 + torch.randn(20_000, 1, generator=generator)
    assert fit_probe(features, labels, features, labels).accuracy(
        features, labels
    ) == pytest.approx(0.841, abs=0.01)


def test_the_scale_of_features_does_not_matter():
    features, labels = clusters(200, 0, spread=2.0)

    def accuracy(scale):
        scaled = scale * features
        return fit_probe(scaled, labels, scaled, labels).accuracy(scaled, labels)

    assert 0.5 < accuracy(1.0) < 1
    assert accuracy(1e4) == accuracy(1.0)


def test_the_probe_is_fitted_in_inference_mode():
    with torch.inference_mode():
        features, labels = clusters(200, 0)
        assert fit_probe(features, labels, features, labels).accuracy(features, labels) == 1.0


def test_the_weight_decay_is_selected_on_held_out_features():
    train, held_out = clusters(40, 0, spread=3.0), clusters(300, 3, spread=3.0)
    chosen = fit_probe(*train, *held_out).accuracy(*held_out)
    # Chosen on the training features themselves, the decay is one of the others.
    assert chosen >= fit_probe(*train, *train).accuracy(*held_out)
