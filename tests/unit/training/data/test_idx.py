import gzip

import numpy as np
import pytest

from latentserve_training.data.idx import (
    find_idx,
    holds_idx,
    read_idx_folder,
    read_idx_images,
    read_idx_labels,
)
from latentserve_training.errors import DataError

TINY = b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" + 2 * b"\x00\x00\x00\x03" + bytes(18)
EMPTY = b"\x00\x00\x08\x03" + b"\x00\x00\x00\x00" + 2 * b"\x00\x00\x00\x03"
LABELS = b"\x00\x00\x08\x01" + b"\x00\x00\x00\x02" + bytes(20)


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_are_read_directly_and_as_torchvision_makes_them(
    tmp_path, images, idx, place, packed
):
    raw = tmp_path / place
    raw.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", images), ("t10k", images[:10])):
        content = gzip.compress(idx(part)) if packed else idx(part)
        suffix = ".gz" if packed else ""
        (raw / f"{name}-images-idx3-ubyte{suffix}").write_bytes(content)

    source = read_idx_folder(tmp_path)

    assert source.name == tmp_path.name
    np.testing.assert_array_equal(source.train.images[:, 0], images)
    np.testing.assert_array_equal(source.test.images[:, 0], images[:10])
    assert source.train.labels is None


def test_a_folder_of_this_format_is_known_by_either_file(idx_folder):
    assert holds_idx(idx_folder)
    (idx_folder / "train-images-idx3-ubyte").unlink()
    assert holds_idx(idx_folder)
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    assert not holds_idx(idx_folder)
    assert find_idx(idx_folder, "t10k-images-idx3-ubyte") is None


def write_labels(folder, idx, train, test):
    for name, part in (("train", train), ("t10k", test)):
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(part, magic=0x801))


def test_labels_are_read_if_both_parts_have_them(idx_folder, idx):
    labels = np.arange(40, dtype=np.uint8)
    write_labels(idx_folder, idx, labels, labels[:10])
    source = read_idx_folder(idx_folder)
    np.testing.assert_array_equal(source.train.labels, labels)
    np.testing.assert_array_equal(source.test.labels, labels[:10])
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    assert read_idx_folder(idx_folder).train.labels is None


def test_labels_must_be_as_many_as_the_images(idx_folder, idx):
    write_labels(idx_folder, idx, np.zeros(39, np.uint8), np.zeros(10, np.uint8))
    with pytest.raises(
        DataError, match=r"different numbers of labels and images: 39 in train-labels.*, 40"
    ):
        read_idx_folder(idx_folder)


def test_labels_in_another_format_are_named(idx_folder, idx):
    write_labels(idx_folder, idx, np.zeros(40, np.uint8), np.zeros(10, np.uint8))
    path = idx_folder / "train-labels-idx1-ubyte"
    path.write_bytes(TINY)
    with pytest.raises(DataError, match="not an IDX file of uint8 labels"):
        read_idx_labels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes long, less than an IDX header"),
        (b"\x00\x00\x08\x03", "4 bytes long, less than an IDX header"),
        (LABELS, "starts with 0x00000801"),
        (TINY[:-1], "33 bytes long, but its header specifies 34"),
        (TINY + b"x", "35 bytes long, but its header specifies 34"),
        (EMPTY, "holds no pixels"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx_images(path)
    assert str(path) in str(caught.value)


# With the time of packing in it, the workers of xdist would not agree on the name of this test.
@pytest.mark.parametrize("content", [b"not gzip at all", gzip.compress(TINY, mtime=0)[:-9]])
def test_damaged_gzip_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ubyte\.gz cannot be read"):
        read_idx_images(path)


def test_a_missing_file_is_named_with_the_correction(idx_folder):
    (idx_folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"holds no t10k-images-idx3-ubyte.*--download"):
        read_idx_folder(idx_folder)
