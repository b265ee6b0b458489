"""Fixtures that write small data sets in each format."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 5, 6), dtype=np.uint8)


@pytest.fixture(scope="session")
def idx():
    def idx(array, magic=0x803):
        header = b"".join(number.to_bytes(4, "big") for number in (magic, *array.shape))
        return header + array.tobytes()

    return idx


@pytest.fixture
def idx_folder(tmp_path, images, idx):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10]))
    return tmp_path


@pytest.fixture(scope="session")
def write_pictures():
    """Image files of random pixels, ``[h, w]`` or ``[h, w, 3]``, named 0.png, 1.png, …"""

    def write(folder, count, shape=(8, 8, 3), seed=0):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        return folder

    return write
