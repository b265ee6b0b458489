import numpy as np
import pytest
from PIL import Image

from latentserve_training.data.resize import decode, shape_images
from latentserve_training.errors import DataError


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture
def grey(rgb):
    return rgb[..., 0].copy()


def test_pixels_are_read_unchanged(tmp_path, rgb, grey):
    colour = decode(save(tmp_path / "rgb.png", rgb), 0, None)
    np.testing.assert_array_equal(colour, rgb.transpose(2, 0, 1))
    assert colour.dtype == np.uint8
    one = decode(save(tmp_path / "grey.png", grey), 0, None)
    np.testing.assert_array_equal(one, grey[None])


@pytest.mark.parametrize(("channels", "expected"), [(1, [[76]]), (3, [[255], [0], [0]])])
def test_colours_become_what_is_asked_for(tmp_path, channels, expected):
    red = np.array([[[255, 0, 0]]], np.uint8)
    pixels = decode(save(tmp_path / "red.png", red), channels, None)
    np.testing.assert_array_equal(pixels[..., 0], expected)  # 0.299 × 255: ITU-R 601-2


def test_grey_becomes_rgb_by_repetition(tmp_path, grey):
    pixels = decode(save(tmp_path / "grey.png", grey), 3, None)
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3))


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_other_greys_are_grey(tmp_path, grey, mode):
    assert decode(save(tmp_path / "x.png", grey, mode), 0, None).shape == (1, 6, 9)


def test_palettes_count_as_rgb_and_alpha_is_dropped(tmp_path, rgb):
    palette = decode(save(tmp_path / "p.png", rgb, "P"), 0, None)
    assert palette.shape == (3, 6, 9)
    see_through = save(tmp_path / "pt.png", rgb, "P", transparency=b"\x00" * 4)
    np.testing.assert_array_equal(decode(see_through, 0, None), palette)
    alpha = np.concatenate([rgb, np.full((6, 9, 1), 7, np.uint8)], 2)
    pixels = decode(save(tmp_path / "a.png", alpha), 0, None)
    np.testing.assert_array_equal(pixels, rgb.transpose(2, 0, 1))


def test_cmyk_becomes_rgb(tmp_path):
    white = np.full((4, 4, 3), 255, np.uint8)
    pixels = decode(save(tmp_path / "x.jpg", white, "CMYK"), 0, None)
    assert pixels.shape == (3, 4, 4)
    assert pixels.min() > 250


def test_an_image_is_rotated_by_its_exif_orientation(tmp_path, grey):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by 90 degrees
    path = tmp_path / "turned.png"
    Image.fromarray(grey).save(path, exif=exif)
    np.testing.assert_array_equal(decode(path, 0, None)[0], np.rot90(grey, -1))


def test_resizing_keeps_the_proportions_and_cuts_off_both_sides_alike(tmp_path):
    # Three squares of one colour each side by side: the middle one is left.
    stripes = np.repeat(np.array([[10, 100, 200]], np.uint8), 40, 1).repeat(40, 0)
    pixels = decode(save(tmp_path / "x.png", stripes), 0, (8, 8))
    assert pixels.shape == (1, 8, 8)
    np.testing.assert_allclose(pixels[0, :, 1:-1], 100, atol=2)


def test_resizing_smooths_what_is_finer_than_the_new_pixels(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = decode(save(tmp_path / "x.png", board), 0, (8, 8))
    np.testing.assert_allclose(pixels, 127.5, atol=2)


def test_height_comes_before_width(tmp_path, grey):
    assert decode(save(tmp_path / "x.png", grey), 0, (4, 12)).shape == (1, 4, 12)


def test_arrays_are_shaped_as_files_are(tmp_path, rgb):
    rows = rgb.transpose(2, 0, 1)[None]
    for channels, size in ((0, (4, 4)), (1, None), (1, (4, 8)), (3, (8, 4))):
        from_file = decode(save(tmp_path / "x.png", rgb), channels, size)
        np.testing.assert_array_equal(shape_images(rows, channels, size)[0], from_file)
    grey = rows[:, :1]
    np.testing.assert_array_equal(shape_images(grey, 3, None), np.repeat(grey, 3, 1))


def test_arrays_that_fit_are_not_touched(rgb):
    rows = rgb.transpose(2, 0, 1)[None]
    assert shape_images(rows, 0, None) is rows
    assert shape_images(rows, 3, (6, 9)) is rows


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tif", "ppm"])
def test_truncated_files_are_named(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"x.{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"x\.{suffix} is (damaged or truncated|not an image)"):
        decode(path, 0, None)


def test_a_text_file_with_an_image_suffix_is_named(tmp_path):
    (tmp_path / "x.png").write_text("not a picture", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.png is not an image"):
        decode(tmp_path / "x.png", 0, None)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_images_are_refused_and_not_truncated(tmp_path, suffix):
    path = save(tmp_path / f"x.{suffix}", np.full((4, 4), 1000, np.uint16))
    with pytest.raises(DataError, match=rf"x\.{suffix} has more than 8 bits per channel"):
        decode(path, 0, None)


def test_16_bit_rgb_images_are_refused(tmp_path):
    import struct
    import zlib

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # Pillow cannot write such a file
    pixels = zlib.compress(b"\x00" + bytes(6))
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"x\.png has more than 8 bits per channel"):
        decode(path, 0, None)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_in_one_file_are_refused(tmp_path, rgb, suffix):
    frames = [Image.fromarray(np.roll(rgb, shift, 1)) for shift in range(3)]
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"x\.{suffix} holds 3 frames"):
        decode(path, 0, None)


def test_other_colour_spaces_are_named(tmp_path):
    path = tmp_path / "x.tif"
    Image.new("LAB", (4, 4)).save(path)
    with pytest.raises(DataError, match=r"x\.tif has the colour mode LAB"):
        decode(path, 0, None)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", np.zeros((64, 64), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"x\.png may be a decompression bomb"):
        decode(path, 0, None)
