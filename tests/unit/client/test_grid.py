import numpy as np
import PIL.Image
import pytest

from latentserve_client.grid import Row, Section, draw, latent_strips

GREY = np.full((3, 1, 28, 28), 0.5, np.float32)


def colours(picture):
    return {colour for _, colour in picture.getcolors(1 << 24)}


def test_draws_grey_and_colour():
    red = np.zeros((2, 3, 28, 28), np.uint8)
    red[:, 0] = 255
    rows = (Row("grey", GREY), Row("red", red))
    picture = draw([Section("heading", "note", rows)], title="title", note="n")
    assert picture.mode == "RGB"
    assert {(128, 128, 128), (255, 0, 0), (255, 255, 255)} <= colours(picture)


def test_small_images_are_enlarged_by_whole_pixels():
    board = (np.indices((28, 28)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.asarray(draw([Section("", "", (Row("", board[None]),))]).convert("L"))
    # 84 pixels wide, in squares of 3: nothing in between black and white.
    inside = picture[picture.shape[0] // 2 - 20 :, 40:70][:20]
    assert set(np.unique(inside)) <= {0, 255}


def test_large_images_are_not_enlarged():
    picture = draw([Section("", "", (Row("", np.zeros((1, 200, 300), np.uint8)),))])
    assert 300 <= picture.width < 400


def test_many_images_go_on_below():
    one = draw([Section("", "", (Row("a", GREY[:1]), Row("b", GREY[:1])))])
    many = draw([Section("", "", (Row("a", GREY), Row("b", GREY)))], columns=1)
    assert many.width == one.width
    assert many.height > 2.5 * one.height


def test_long_captions_and_headings_fit():
    narrow = draw([Section("h", "n", (Row("", GREY[:1]),))])
    wide = draw([Section("h", "a rather long note " * 5, (Row("", GREY[:1]),))])
    assert wide.width > 2 * narrow.width
    assert np.asarray(wide)[:, -20:].min() == 255


def test_floats_outside_the_range_are_clipped():
    draw([Section("", "", (Row("", np.full((1, 1, 28, 28), 7.0)),))])


@pytest.mark.parametrize(("dim", "height"), [(1, 20), (2, 20), (16, 20), (17, 40), (64, 80)])
def test_latent_strips(dim, height):
    z = np.linspace(-3, 3, 2 * dim).reshape(2, dim).astype(np.float32)
    strips = latent_strips(z)
    assert strips.shape == (2, 3, height, 84)
    low, high = strips[0, :, 0, 0].astype(int), strips[-1, :, 0, -1].astype(int)
    assert low[2] > low[0]  # blue below zero
    if dim in (2, 16, 64):
        assert high[0] > high[2] or dim == 64  # red above


def test_latent_strips_of_zeros_are_white():
    assert latent_strips(np.zeros((1, 4))).min() == 247


def test_strips_are_drawn_at_their_size():
    strips = latent_strips(np.zeros((1, 16), np.float32))
    assert isinstance(draw([Section("", "", (Row("z", strips, False),))]), PIL.Image.Image)
