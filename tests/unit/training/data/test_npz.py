import io
import zipfile

import numpy as np
import pytest

from latentserve_training.data.config import DataConfig
from latentserve_training.data.npz import read_npz
from latentserve_training.errors import DataError

CONFIG = DataConfig(test_fraction=0.25)


@pytest.fixture
def write(tmp_path):
    def write(*arrays, **named):
        np.savez(tmp_path / "set.npz", *arrays, **named)
        return tmp_path / "set.npz"

    return write


def test_keras_names_are_known(write, images):
    labels = np.arange(40)
    path = write(x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10, None])
    source = read_npz(path, CONFIG)
    assert source.name == "set"
    np.testing.assert_array_equal(source.train.images[:, 0], images)
    np.testing.assert_array_equal(source.train.labels, labels)
    np.testing.assert_array_equal(source.test.images[:, 0], images[:10])
    np.testing.assert_array_equal(source.test.labels, labels[:10])


@pytest.mark.parametrize("names", [("images", "labels"), ("x_train", "y_train")])
def test_without_a_test_part_a_fraction_is_held_out(write, images, names):
    path = write(**{names[0]: images, names[1]: np.arange(40)})
    source = read_npz(path, CONFIG)
    assert (len(source.train.images), len(source.test.images)) == (30, 10)
    for part in (source.train, source.test):
        np.testing.assert_array_equal(part.images[:, 0], images[part.labels])
    assert sorted([*source.train.labels, *source.test.labels]) == list(range(40))
    np.testing.assert_array_equal(read_npz(path, CONFIG).test.images, source.test.images)


def test_an_array_without_a_name_is_images(write, images):
    source = read_npz(write(images), CONFIG)
    assert source.train.images.shape == (30, 1, 5, 6)
    assert source.train.labels is None


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_first_or_last(write, channels):
    images = np.random.default_rng(0).integers(0, 256, (8, channels, 4, 5), dtype=np.uint8)
    first = read_npz(write(images), CONFIG)
    last = read_npz(write(images.transpose(0, 2, 3, 1)), CONFIG)
    np.testing.assert_array_equal(first.train.images, last.train.images)
    assert last.train.images.shape == (6, channels, 4, 5)
    assert last.train.images.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_8_bits(write, images, dtype):
    exact = read_npz(write(images), CONFIG)
    floats = read_npz(write((images / 255).astype(dtype)), CONFIG)
    assert floats.train.images.dtype == np.uint8
    np.testing.assert_array_equal(floats.train.images, exact.train.images)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(write, value):
    images = np.zeros((8, 4, 4), np.float32)
    images[3, 1, 2] = value
    with pytest.raises(DataError, match=r"set\.npz: arr_0 holds NaN or infinity"):
        read_npz(write(images), CONFIG)


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0)])
def test_floats_out_of_range_are_refused(write, low, high):
    images = np.linspace(low, high, 128).reshape(8, 4, 4)
    with pytest.raises(DataError, match=rf"from {low:g} to {high:g}; floats must lie in \[0, 1\]"):
        read_npz(write(images), CONFIG)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, np.complex64, "U3"])
def test_other_types_are_refused(write, dtype):
    with pytest.raises(DataError, match=r"arr_0 has the dtype .*expected uint8"):
        read_npz(write(np.zeros((8, 4, 4), dtype)), CONFIG)


@pytest.mark.parametrize("shape", [(8,), (8, 16), (8, 4, 4, 4), (2, 8, 1, 4, 4), (8, 3, 4, 3)])
def test_other_shapes_are_refused(write, shape):
    with pytest.raises(DataError, match=r"has the shape \[[0-9, ]+\], .*expected \[n, h, w\]"):
        read_npz(write(np.zeros(shape, np.uint8)), CONFIG)


@pytest.mark.parametrize("shape", [(0, 4, 4), (8, 0, 4)])
def test_empty_input_is_refused(write, shape):
    with pytest.raises(DataError, match="no pixels"):
        read_npz(write(np.zeros(shape, np.uint8)), CONFIG)


def test_too_few_images_are_refused(write):
    with pytest.raises(DataError, match="holds 1 image and no test images"):
        read_npz(write(np.zeros((1, 4, 4), np.uint8)), CONFIG)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(39, int), "labels holds 39 labels for 40 images"),
        (np.zeros(40), "labels is float64 .*one integer"),
        (np.zeros((40, 10), int), r"shape \[40, 10\].*argmax"),
        (np.full(40, -1), "labels from -1 to -1; number the classes from 0"),
        (np.full(40, 2**40), "number the classes from 0"),
    ],
)
def test_labels_that_do_not_match_are_refused(write, images, labels, message):
    with pytest.raises(DataError, match=message):
        read_npz(write(images=images, labels=labels), CONFIG)


def test_labels_of_one_part_only_are_refused(write, images):
    path = write(x_train=images, y_train=np.zeros(40, int), x_test=images)
    with pytest.raises(DataError, match="holds only one of y_train and y_test"):
        read_npz(path, CONFIG)


class Trap:
    """Raises an error if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickled_objects_are_never_loaded(write, tmp_path):
    trapped = np.array([Trap()] * 8, dtype=object)
    with pytest.raises(
        DataError, match=r"arr_0 is not a numeric array .*pickled objects are never"
    ):
        read_npz(write(trapped), CONFIG)
    trapped.dump(tmp_path / "pickle.npz")
    with pytest.raises(DataError, match=r"pickle\.npz is not an \.npz file"):
        read_npz(tmp_path / "pickle.npz", CONFIG)


def test_other_names_are_listed_with_what_is_expected(write, images):
    path = write(pictures=images, more=images)
    with pytest.raises(DataError, match=r"holds pictures, more; expected x_train and x_test"):
        read_npz(path, CONFIG)
    with pytest.raises(DataError, match=r"holds nothing; expected"):
        read_npz(write(), CONFIG)


def test_members_that_are_no_arrays_are_named(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"text")
    with pytest.raises(DataError, match="images is not a numpy array"):
        read_npz(path, CONFIG)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_a_file_that_is_not_a_zip_is_named(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npz is not an \.npz file, or is truncated"):
        read_npz(path, CONFIG)


def test_damaged_and_truncated_files_are_named(tmp_path, images):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images)
    content = buffer.getvalue()
    path = tmp_path / "set.npz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"set\.npz"):
        read_npz(path, CONFIG)
    flipped = bytearray(content)
    flipped[400] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(DataError, match=r"set\.npz cannot be read.*write it again"):
        read_npz(path, CONFIG)


def test_a_file_that_unpacks_to_more_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=np.zeros((1000, 28, 28), np.uint8))
    monkeypatch.setattr(
        "latentserve_training.data.images.os.sysconf", lambda name: 1000
    )  # a machine with a megabyte
    with pytest.raises(DataError, match=r"too many for the .* of this machine"):
        read_npz(path, CONFIG)
