import pytest
from matplotlib.image import imread

from latentserve_training.evaluate import Subject, evaluate
from latentserve_training.loops import build_model
from latentserve_training.plots import FIGURES, SPLITS, draw_curves


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


@pytest.mark.parametrize("kind", ["autoencoder", "denoising", "vae"])
def test_every_figure_of_a_kind_is_drawn(kind, tmp_path, make_config, image_data):
    model = build_model(make_config(kind), image_data.image_shape)
    metrics = evaluate(model, image_data)
    assert model.figures
    for name in model.figures:
        path = tmp_path / f"{name}.png"
        FIGURES[name](Subject(model, image_data), metrics, "tiny", path)
        assert_has_ink(path)


def assert_has_ink(path):
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 200
    assert 0.01 < (pixels < 0.9).any(axis=2).mean() < 0.98
