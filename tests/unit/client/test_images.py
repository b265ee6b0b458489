import io

import numpy as np
import PIL.Image
import pytest

from latentserve_client import InvalidArgument
from latentserve_client._images import to_images


def file(mode="L", size=(28, 28), suffix="PNG"):
    buffer = io.BytesIO()
    PIL.Image.new(mode, size).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (np.zeros((2, 1, 28, 28), np.float32), [2, 1, 28, 28]),
        (np.zeros((2, 3, 8, 9), np.float32), [2, 3, 8, 9]),
        # Three dimensions are grey images, even with a first dimension of 3.
        (np.zeros((5, 28, 28), np.float32), [5, 1, 28, 28]),
        (np.zeros((3, 28, 28), np.float32), [3, 1, 28, 28]),
        (np.zeros((28, 28), np.float32), [1, 1, 28, 28]),
        # In a list, each array is one image.
        ([np.zeros((28, 28), np.float32)] * 2, [2, 1, 28, 28]),
        ([np.zeros((3, 28, 28), np.float32)] * 2, [2, 3, 28, 28]),
        ((np.zeros((1, 28, 28), np.float32),), [1, 1, 28, 28]),
    ],
)
def test_shapes(images, shape):
    message = to_images(images)
    assert list(message.tensor.shape) == shape
    assert len(message.tensor.data) == np.prod(shape) * 4


@pytest.mark.parametrize(
    ("dtype", "code", "size"),
    [("f4", 1, 4), ("f2", 2, 2), ("f8", 1, 4), ("u1", 3, 1), (">f4", 1, 4), (">f8", 1, 4)],
)
def test_dtypes(dtype, code, size):
    array = np.arange(6).reshape(1, 1, 2, 3).astype(dtype)
    tensor = to_images(array).tensor
    assert tensor.data_type == code
    assert len(tensor.data) == 6 * size
    wire = {1: "<f4", 2: "<f2", 3: "u1"}[code]
    np.testing.assert_array_equal(np.frombuffer(tensor.data, wire), np.arange(6))


def test_any_memory_layout():
    array = np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4)
    for view in (np.asfortranarray(array), array[::-1], array.transpose(0, 1, 3, 2)):
        sent = np.frombuffer(to_images(view).tensor.data, np.float32).reshape(view.shape)
        np.testing.assert_array_equal(sent, view)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 28, 28), np.int64), "int64 values; expected float32"),
        (np.zeros((1, 28, 28), bool), "bool values"),
        (np.zeros((1, 28, 28), np.uint16), "uint16 values"),
        (np.zeros((1, 28, 28), object), "object values"),
        (np.zeros((1, 28, 28, 3), np.float32), "channels come before height and width"),
        (np.zeros((1, 4, 28, 28), np.float32), "has 4 channels; expected 1 or 3"),
        (np.zeros(784, np.float32), r"shape \[784\]; expected"),
        (np.zeros((0, 1, 28, 28), np.float32), "contains no image"),
        ([], "empty list"),
        (3.0, "a float; expected an array or files"),
        (None, "a NoneType"),
        ([[0.0, 1.0]], "a list; expected an array, a path"),
        ([np.zeros((28, 28)), "x.png"], "a list of arrays and files"),
        ([np.zeros((28, 28)), np.zeros((27, 28))], "expected one shape and data type"),
        ([np.zeros((28, 28)), np.zeros((28, 28), np.uint8)], "expected one shape and data type"),
        ([np.zeros((2, 1, 28, 28))], "each array is one image"),
        ([np.zeros((28, 28, 3))], "channels come before"),
        (b"GIF8 not really", "not an image file"),
        (PIL.Image.new("F", (28, 28)), "mode F; convert it"),
        (PIL.Image.new("I;16", (28, 28)), "mode I;16; convert it"),
    ],
)
def test_refuses_ambiguous_images(images, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        to_images(images)
    assert caught.value.violations
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("suffix", ["PNG", "JPEG"])
def test_png_and_jpeg_files_are_sent_unchanged(tmp_path, suffix):
    data = file(suffix=suffix)
    path = tmp_path / "image"
    path.write_bytes(data)
    for images in (path, str(path), data, [path], [str(path)], (data,)):
        assert list(to_images(images).encoded.files) == [data]
    assert len(to_images([path, data, PIL.Image.new("RGB", (28, 28))]).encoded.files) == 3


def test_other_files_are_sent_as_png(tmp_path):
    path = tmp_path / "image.bmp"
    path.write_bytes(file("RGB", suffix="BMP"))
    (sent,) = to_images(path).encoded.files
    assert sent.startswith(b"\x89PNG")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pil_images_keep_their_mode(mode):
    (sent,) = to_images(PIL.Image.new(mode, (5, 7))).encoded.files
    with PIL.Image.open(io.BytesIO(sent)) as image:
        assert (image.mode, image.size) == (mode, (5, 7))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nope"):
        to_images(tmp_path / "nope.png")


def test_a_file_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(InvalidArgument, match=r"notes\.txt: not an image file"):
        to_images([path])


def test_a_damaged_file_of_another_format_is_named(tmp_path):
    path = tmp_path / "cut.bmp"
    path.write_bytes(file("RGB", suffix="BMP")[:100])
    with pytest.raises(InvalidArgument, match=r"cut\.bmp: not an image file"):
        to_images([path])
