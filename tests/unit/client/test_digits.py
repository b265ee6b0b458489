import gzip
import struct

import numpy as np
import pytest

from latentserve_client import digits


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)


@pytest.fixture
def labels():
    return np.arange(7, dtype=np.uint8)


def test_bundled_digits_are_ten_of_each():
    bundled = digits.bundled()
    assert bundled.images.shape == (100, 28, 28)
    assert bundled.images.dtype == np.uint8
    np.testing.assert_array_equal(bundled.labels, np.arange(100) % 10)
    assert bundled.images.max() == 255
    assert len(np.unique(bundled.images, axis=0)) == 100


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [("3", [0, 1, 2]), ("3,", [3]), ("7,7, 1", [7, 7, 1]), ("100", list(range(10)) * 10)],
)
def test_choose(wanted, labels):
    chosen = digits.choose(digits.bundled(), wanted)
    assert chosen.labels.tolist() == labels
    assert len(np.unique(chosen.images, axis=0)) == len(chosen)


@pytest.mark.parametrize("wanted", ["0", "101", "", "a", "-1", "1,12", "1.5", ",".join("1" * 11)])
def test_choose_refuses(wanted):
    with pytest.raises(ValueError, match="digit"):
        digits.choose(digits.bundled(), wanted)


@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_mnist(tmp_path, images, labels, folder, suffix):
    pack = gzip.compress if suffix else bytes
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, array in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        (tmp_path / folder / (name + suffix)).write_bytes(pack(idx(array)))
    read = digits.read_mnist(tmp_path)
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)


def test_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        digits.read_mnist(tmp_path)


def test_refuses_labels_of_other_images(tmp_path, images, labels):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:3]))
    with pytest.raises(ValueError, match="do not belong together"):
        digits.read_mnist(tmp_path)


def test_refuses_damaged_files(tmp_path, images):
    whole = idx(images)
    damaged = [
        b"",
        b"\x00",
        whole[:-1],
        whole + b"x",
        b"\x00\x00\x0d\x01",
        gzip.compress(whole)[:-9],
    ]
    for data in [*damaged, b"\x1f\x8b"]:
        path = tmp_path / "file"
        path.write_bytes(data)
        with pytest.raises(ValueError, match="IDX file"):
            digits.read_idx(path)
