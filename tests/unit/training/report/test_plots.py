import numpy as np
import pytest
import torch
from matplotlib.image import imread

from latentserve_training.data import ImageData
from latentserve_training.evaluate.metric import Subject
from latentserve_training.evaluate.suite import evaluate
from latentserve_training.models.registry import KINDS
from latentserve_training.report.plots import SPLITS, draw_curves, mosaic
from latentserve_training.report.registry import FIGURES
from latentserve_training.train.loop import build_model


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_are_drawn(tmp_path, epochs):
    history = [
        {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch, "seconds": 1.0}
        | {"train_kl": epoch, "validation_kl": epoch}
        for epoch in range(1, epochs + 1)
    ]
    draw_curves(history, 1, "tiny", tmp_path / "curves.png")
    assert_has_ink(tmp_path / "curves.png")


def width_of_curves(folder, **losses):
    row = {f"{split}_{name}": value for name, value in losses.items() for split in SPLITS}
    draw_curves([{"epoch": 1} | row], 1, "tiny", folder / "curves.png")
    return imread(folder / "curves.png").shape[1]


def test_a_loss_with_a_single_part_is_drawn_once(tmp_path):
    once = width_of_curves(tmp_path, loss=2.0)
    assert width_of_curves(tmp_path, loss=2.0, squared_error=2.0) == once
    assert width_of_curves(tmp_path, loss=2.0, squared_error=1.0) == 2 * once


def test_losses_of_one_split_alone_are_drawn_too(tmp_path):
    """As of an adversarial kind, whose validation has no adversarial loss."""
    history = [
        {"epoch": epoch, "train_generator_loss": 0.1 * epoch, "seconds": 1.0}
        | {"validation_loss": 1 / epoch, "validation_frechet_distance": 1 / epoch}
        for epoch in range(1, 8)
    ]
    path = tmp_path / "curves.png"
    draw_curves(history, 1, "tiny", path)
    assert_has_ink(path)
    one_panel = width_of_curves(tmp_path, loss=2.0)
    draw_curves(history, 1, "tiny", path)
    assert imread(path).shape[1] == 2 * one_panel  # the validation loss is the distance: drawn once


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_figure_of_a_kind_is_drawn(kind, tmp_path, make_config, image_data):
    model = build_model(make_config(kind), image_data.image_shape)
    metrics = evaluate(model, image_data)
    assert model.plots
    for name in model.plots:
        path = tmp_path / f"{name}.png"
        FIGURES[name](Subject(model, image_data), metrics, "tiny", path)
        assert_has_ink(path)


def test_many_losses_are_small_panels_three_beside_each_other(tmp_path):
    """As the adversarial kinds log them: of training alone, of validation alone, and of both."""
    both = {f"{split}_loss": 1.0 for split in SPLITS}
    training = {f"train_term_{index}": float(index) for index in range(9)}
    history = [{"epoch": each, "validation_frechet": 3.0} | both | training for each in (1, 2)]
    draw_curves(history, 1, "tiny", tmp_path / "curves.png")
    pixels = imread(tmp_path / "curves.png")
    assert 1500 < pixels.shape[1] < 1700
    assert 1500 < pixels.shape[0] < 1700  # four rows
    assert_has_ink(tmp_path / "curves.png")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_colours_are_drawn(kind, tmp_path, make_config, image_data):
    in_colour = ImageData(
        *(
            torch.cat([part, part.flip(2), part.flip(3)], 1)
            for part in (image_data.train, image_data.validation, image_data.test)
        ),
        name="coloured blobs",
        sha256="0" * 64,
    )
    model = build_model(make_config(kind), in_colour.image_shape)
    metrics = evaluate(model, in_colour)
    path = tmp_path / "figure.png"
    FIGURES[model.plots[0]](Subject(model, in_colour), metrics, "tiny", path)
    pixels = imread(path)[..., :3]
    assert (pixels.max(2) - pixels.min(2)).max() > 0, "every pixel is grey"


def test_three_losses_leave_no_empty_panel(tmp_path):
    def share_of_ink(**losses):
        row = {f"{split}_{name}": value for name, value in losses.items() for split in SPLITS}
        draw_curves([{"epoch": 1} | row], 1, "tiny", tmp_path / "curves.png")
        pixels = imread(tmp_path / "curves.png")[..., :3]
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        return (pixels[height + 20 : -80, width:] < 0.9).mean()  # above the legend

    assert share_of_ink(loss=2.0, squared_error=1.0, kl=1.0) == 0
    assert share_of_ink(loss=2.0, squared_error=1.0, kl=1.0, sigma=1.0) > 0


def test_a_mosaic_holds_grey_and_coloured_images_of_any_shape_on_white():
    grey, coloured = np.zeros((2, 1, 4, 8)), np.full((3, 3, 4, 8), [[[0.5]], [[0.25]], [[2.0]]])
    canvas = mosaic([grey, coloured])
    assert canvas.shape == (18, 27, 3)
    assert np.array_equal(canvas[4, 4], [0.0, 0.0, 0.0])
    assert np.array_equal(canvas[13, 22], [0.5, 0.25, 1.0])
    assert np.array_equal(canvas[4, 22], [1.0, 1.0, 1.0])  # the first row has two images only
    assert np.array_equal(canvas[0, 4], [1.0, 1.0, 1.0])


def test_a_code_larger_than_the_image_is_drawn_without_a_baseline(
    tmp_path, make_config, image_data
):
    config = make_config("sparse", model={"latent_dim": 200, "sparsity": "l1"})
    model = build_model(config, image_data.image_shape)
    metrics = evaluate(model, image_data)
    assert metrics["test_mse"].baseline_name is None
    path = tmp_path / "reconstructions.png"
    FIGURES["reconstructions"](Subject(model, image_data), metrics, "tiny", path)
    assert_has_ink(path)


def test_a_corruption_without_a_filter_is_drawn_without_one(tmp_path, make_config, image_data):
    config = make_config("denoising", model={"corruption": "masking"})
    model = build_model(config, image_data.image_shape)
    path = tmp_path / "denoised.png"
    FIGURES["denoised"](Subject(model, image_data), evaluate(model, image_data), "tiny", path)
    assert_has_ink(path)


def test_each_level_of_noise_has_rows_of_its_own(tmp_path, make_config, image_data):
    def height(levels):
        config = make_config("denoising", model={"noise_sigma": 0.5, "measured_levels": levels})
        model, path = build_model(config, image_data.image_shape), tmp_path / "denoised.png"
        FIGURES["denoised"](Subject(model, image_data), evaluate(model, image_data), "tiny", path)
        assert_has_ink(path)
        return imread(path).shape[0]

    row = 0.62 * 150  # pixels
    assert height([0.2]) - height([]) == pytest.approx(3 * row, abs=2)


def assert_has_ink(path):
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 200
    assert 0.01 < (pixels < 0.9).any(axis=2).mean() < 0.98
