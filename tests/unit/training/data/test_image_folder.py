import shutil

import numpy as np
import pytest
from PIL import Image

from latentserve_training.data.config import DataConfig
from latentserve_training.data.image_folder import read_image_folder
from latentserve_training.errors import DataError

CONFIG = DataConfig(test_fraction=0.25)


def rows(images):
    return {image.tobytes() for image in images}


def test_a_flat_folder_gives_images_without_labels(tmp_path, write_pictures):
    source = read_image_folder(write_pictures(tmp_path / "set", 12), CONFIG)
    assert source.name == "set"
    assert source.train.images.shape == (9, 3, 8, 8)
    assert source.test.images.shape == (3, 3, 8, 8)
    assert source.train.labels is None
    expected = {
        np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes()
        for path in (tmp_path / "set").iterdir()
    }
    assert rows(source.train.images) | rows(source.test.images) == expected
    assert len(expected) == 12


def write_classes(folder, write_pictures, *, cats, dogs):
    """Write images whose lowest bit of each pixel encodes the class."""
    for name, count, bit in (("cat", cats, 0), ("dog", dogs, 1)):
        write_pictures(folder / name, count, (8, 8), seed=bit)
        for path in (folder / name).iterdir():
            Image.fromarray(np.asarray(Image.open(path)) // 2 * 2 + np.uint8(bit)).save(path)
    return folder


def test_sub_folders_are_classes(tmp_path, write_pictures):
    source = read_image_folder(write_classes(tmp_path, write_pictures, cats=30, dogs=10), CONFIG)
    assert source.train.images.shape == (30, 1, 8, 8)
    for part in (source.train, source.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0] % 2, part.labels)
    assert np.bincount(np.concatenate([source.train.labels, source.test.labels])).tolist() == [
        30,
        10,
    ]


def test_any_prefix_is_balanced_over_the_classes(tmp_path, write_pictures):
    folder = write_classes(tmp_path, write_pictures, cats=60, dogs=60)
    few = read_image_folder(folder, DataConfig(max_train_images=24, max_test_images=5))
    assert len(few.test.images) == 5
    assert 6 <= few.train.labels.sum() <= 18
    every = read_image_folder(folder, DataConfig())
    np.testing.assert_array_equal(few.train.images, every.train.images[:24])


def test_only_the_configured_number_of_files_is_read(tmp_path, write_pictures):
    write_pictures(tmp_path, 40, (8, 8))
    few = read_image_folder(tmp_path, DataConfig(max_train_images=4, max_test_images=2))
    kept = rows([*few.train.images, *few.test.images])
    for path in tmp_path.iterdir():
        if np.asarray(Image.open(path)).tobytes() not in kept:
            path.write_bytes(b"damaged")
    again = read_image_folder(tmp_path, DataConfig(max_train_images=4, max_test_images=2))
    np.testing.assert_array_equal(again.train.images, few.train.images)


def test_the_split_does_not_depend_on_the_path_of_the_folder(tmp_path, write_pictures):
    folder = write_pictures(tmp_path / "here", 20)
    shutil.copytree(folder, tmp_path / "there" / "other")
    first, second = (
        read_image_folder(each, CONFIG) for each in (folder, tmp_path / "there" / "other")
    )
    np.testing.assert_array_equal(first.train.images, second.train.images)
    np.testing.assert_array_equal(first.test.images, second.test.images)


@pytest.mark.parametrize("classes", [False, True])
def test_train_and_test_folders_are_kept_apart(tmp_path, write_pictures, classes, capsys):
    for part, count in (("train", 8), ("test", 3)):
        for name in ("a", "b") if classes else ("",):
            write_pictures(tmp_path / part / name, count, seed=count)
    write_pictures(tmp_path / "val", 2)
    source = read_image_folder(tmp_path, CONFIG)
    factor = 2 if classes else 1
    assert (len(source.train.images), len(source.test.images)) == (8 * factor, 3 * factor)
    assert (source.test.labels is not None) == classes
    assert "ignored: val" in capsys.readouterr().err


def test_files_without_an_image_suffix_are_ignored(tmp_path, write_pictures):
    write_pictures(tmp_path, 8)
    (tmp_path / "README.txt").write_text("a note", encoding="utf-8")
    (tmp_path / ".hidden.png").write_text("of some system", encoding="utf-8")
    (tmp_path / ".cache").mkdir()
    assert len(read_image_folder(tmp_path, CONFIG).train.images) == 6


def test_classes_may_have_folders_of_their_own_but_not_hidden_ones(tmp_path, write_pictures):
    write_pictures(tmp_path / "cat" / "young", 4)
    write_pictures(tmp_path / "cat" / "old", 4, seed=1)
    write_pictures(tmp_path / "cat" / ".ipynb_checkpoints", 4, seed=2)
    source = read_image_folder(tmp_path, CONFIG)
    assert len(source.train.images) + len(source.test.images) == 8
    assert source.train.labels.tolist() == [0] * 6


def test_suffixes_may_be_capital_letters(tmp_path, write_pictures):
    write_pictures(tmp_path, 8)
    (tmp_path / "0.png").rename(tmp_path / "0.PNG")
    assert len(read_image_folder(tmp_path, CONFIG).train.images) == 6


def test_mixed_sizes_need_a_size(tmp_path, write_pictures):
    write_pictures(tmp_path, 4)
    Image.new("RGB", (8, 12)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"png is (12×8|8×8), .*png is .*set data\.image_size"):
        read_image_folder(tmp_path, CONFIG)
    resized = DataConfig(test_fraction=0.25, image_size=(4, 8))
    assert read_image_folder(tmp_path, resized).train.images.shape == (4, 3, 4, 8)


def test_mixed_colours_need_a_choice(tmp_path, write_pictures):
    write_pictures(tmp_path, 4)
    Image.new("L", (8, 8)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"png is (grey|RGB), .*png is .*set data\.channels=1"):
        read_image_folder(tmp_path, CONFIG)
    for channels in (1, 3):
        chosen = DataConfig(test_fraction=0.25, channels=channels)
        assert read_image_folder(tmp_path, chosen).train.images.shape[1] == channels


def test_test_images_must_be_like_training_images(tmp_path, write_pictures):
    write_pictures(tmp_path / "train", 4)
    write_pictures(tmp_path / "test", 4, (8, 8))
    with pytest.raises(DataError, match=r"test/.*is grey, .*train/.*is RGB"):
        read_image_folder(tmp_path, CONFIG)


def test_a_file_that_cannot_be_read_is_named(tmp_path, write_pictures):
    write_pictures(tmp_path, 4)
    (tmp_path / "notes.png").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match=r"notes\.png is not an image"):
        read_image_folder(tmp_path, CONFIG)


def test_a_suspected_bomb_is_refused_although_pillow_only_warns(
    tmp_path, write_pictures, monkeypatch
):
    write_pictures(tmp_path, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # of 64: below twice the limit
    with pytest.raises(DataError, match=r"\d\.png may be a decompression bomb"):
        read_image_folder(tmp_path, CONFIG)


@pytest.mark.parametrize("below", ["", "a/", "train/", "a/.b/"])
def test_an_empty_folder_says_what_belongs_there(tmp_path, below):
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / below / "notes.txt").write_text("text", encoding="utf-8")
    if below == "train/":
        (tmp_path / "test").mkdir()
    with pytest.raises(
        DataError, match=r"holds no images: neither image files.*nor the four files of MNIST"
    ):
        read_image_folder(tmp_path, CONFIG)


def test_an_empty_class_is_named(tmp_path, write_pictures):
    write_pictures(tmp_path / "cat", 4)
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"dog holds no image files; remove it"):
        read_image_folder(tmp_path, CONFIG)


def test_images_next_to_class_folders_are_refused(tmp_path, write_pictures):
    write_pictures(write_pictures(tmp_path, 4) / "cat", 4)
    with pytest.raises(DataError, match=r"image files \(0\.png\) next to sub-folders \(cat\)"):
        read_image_folder(tmp_path, CONFIG)


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_one_part_alone_is_refused(tmp_path, write_pictures, there, missing):
    write_pictures(tmp_path / there, 4)
    with pytest.raises(DataError, match=rf"holds {there}/ but no {missing}/; add it, or give"):
        read_image_folder(tmp_path, CONFIG)


def test_both_parts_need_the_same_classes(tmp_path, write_pictures):
    for place in ("train/cat", "train/dog", "test/cat"):
        write_pictures(tmp_path / place, 2)
    with pytest.raises(DataError, match="only one of them has dog"):
        read_image_folder(tmp_path, CONFIG)


def test_too_few_images_are_refused(tmp_path, write_pictures):
    with pytest.raises(DataError, match="holds 1 image and no test images"):
        read_image_folder(write_pictures(tmp_path, 1), CONFIG)
