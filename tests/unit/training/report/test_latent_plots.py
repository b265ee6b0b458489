import dataclasses
import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from latentserve_training.data import Labels
from latentserve_training.evaluate.metric import Subject
from latentserve_training.models.base import LatentModel
from latentserve_training.report.latent_plots import (
    draw_interpolation,
    draw_latents,
    interpolate,
    project,
)
from latentserve_training.train.loop import build_model


@pytest.fixture
def subject(make_config, image_data):
    return Subject(build_model(make_config(), image_data.image_shape).eval(), image_data)


def assert_has_ink(path):
    assert 0.01 < (imread(path)[..., :3] < 0.9).any(axis=2).mean() < 0.98


def test_two_latents_are_the_axes_themselves():
    codes = np.random.default_rng(0).normal(size=(20, 2))
    points, names = project(codes)
    assert np.array_equal(points, codes)
    assert names == ("latent 1", "latent 2")


def test_more_latents_are_projected_onto_their_principal_directions():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    wide = rng.normal(size=(5000, 6)) * [1.0, 5.0, 0.1, 3.0, 0.1, 0.1] + 7.0
    points, names = project(wide @ basis)
    assert np.allclose(points.std(0), [5.0, 3.0], rtol=0.05)
    assert abs(np.corrcoef(points[:, 0], wide[:, 1])[0, 1]) > 0.999
    assert abs(np.corrcoef(points[:, 1], wide[:, 3])[0, 1]) > 0.999
    assert names[0].startswith("first principal component: 71 %")


def test_codes_that_are_all_the_same_are_points_too():
    points, _ = project(np.ones((5, 3)))
    assert np.array_equal(points, np.zeros((5, 2)))
    assert project(np.ones((5, 1)))[0].shape == (5, 2)


@pytest.mark.parametrize("classes", [0, 2, 12, 30])
def test_codes_are_drawn_with_and_without_classes(classes, subject, image_data, tmp_path):
    labels = Labels(*(torch.arange(60) % classes,) * 3) if classes else None
    data = dataclasses.replace(image_data, labels=labels)
    draw_latents(dataclasses.replace(subject, data=data), {}, "tiny", tmp_path / "latents.png")
    assert_has_ink(tmp_path / "latents.png")


def test_a_straight_line_is_walked_in_equal_steps():
    path = interpolate(torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 0.0]]), 5, spherical=False)
    expected = [[0.0, 2.0], [1.0, 1.5], [2.0, 1.0], [3.0, 0.5], [4.0, 0.0]]
    assert torch.equal(path, torch.tensor([expected]))


def test_a_great_circle_keeps_the_distance_from_the_origin():
    start, end = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])
    path = interpolate(start, end, 4, spherical=True)[0]
    angles = torch.tensor([0, math.pi / 6, math.pi / 3, math.pi / 2])
    expected = 2 * torch.stack([angles.cos(), 0 * angles, angles.sin()], dim=1)
    torch.testing.assert_close(path, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("end", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
def test_where_there_is_no_single_circle_the_line_is_straight(end):
    start, end = torch.tensor([[1.0, 2.0]]), torch.tensor([end])
    path = interpolate(start, end, 3, spherical=True)
    assert path.isfinite().all()
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)


@pytest.mark.parametrize(("kind", "words"), [("autoencoder", "straight line"), ("vae", "circle")])
def test_the_caption_says_which_way_was_taken(
    kind, words, make_config, image_data, tmp_path, monkeypatch
):
    from latentserve_training.report import latent_plots

    drawn = []
    monkeypatch.setattr(latent_plots, "draw_rows", lambda *arguments: drawn.append(arguments))
    model = build_model(make_config(kind), image_data.image_shape).eval()
    draw_interpolation(Subject(model, image_data), {}, "tiny", tmp_path / "i.png")
    rows, title, _, headings = drawn[0]
    assert words in title
    assert "between test images" in title
    # Both ends are the images themselves, and beside them what their codes give.
    _, strip = rows[1]
    assert len(strip) == len(headings) == latent_plots.STEPS + 2
    own = image_data.test[2:3].float() / 255
    assert np.array_equal(strip[0], own[0].numpy())
    with torch.inference_mode():
        assert np.allclose(strip[1], model.reconstruct(own)[0].numpy(), atol=1e-5)


def test_a_kind_without_an_encoder_walks_between_draws(
    make_config, image_data, tmp_path, monkeypatch
):
    from latentserve_training.report import latent_plots

    drawn = []
    monkeypatch.setattr(latent_plots, "draw_rows", lambda *arguments: drawn.append(arguments))
    model = build_model(make_config("vae"), image_data.image_shape).eval()
    monkeypatch.setattr(type(model), "encode", LatentModel.encode)
    draw_interpolation(Subject(model, image_data), {}, "tiny", tmp_path / "i.png")
    rows, title, _, headings = drawn[0]
    assert "between samples from the prior" in title
    assert len(rows[0][1]) == len(headings) == latent_plots.STEPS


def test_one_test_image_is_enough(subject, image_data, tmp_path):
    data = dataclasses.replace(image_data, test=image_data.test[:1])
    path = tmp_path / "interpolation.png"
    draw_interpolation(dataclasses.replace(subject, data=data), {}, "tiny", path)
    assert path.is_file()
