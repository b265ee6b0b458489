import gzip
import struct

import numpy as np
import PIL.Image
import pytest

from latentserve_client._models import ImageSpec
from latentserve_client.load.plan.inputs import BadImages, read_images, to_files

GREY, RGB = ImageSpec(1, 28, 28), ImageSpec(3, 20, 30)


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def mnist(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.arange(5, dtype=np.uint8))
    return tmp_path, images


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_synthetic_images_have_the_models_shape_and_differ(spec):
    images = read_images("synthetic").fitted(spec, 6, seed=1)
    assert images.shape == (6, spec.channels, spec.height, spec.width)
    assert images.dtype == np.uint8
    assert images.max() > 200
    assert len({image.tobytes() for image in images}) == 6
    np.testing.assert_array_equal(images, read_images("synthetic").fitted(spec, 6, seed=1))


def test_mnist_comes_from_a_folder_or_a_file(mnist):
    folder, images = mnist
    for source in (folder, folder / "t10k-images-idx3-ubyte.gz"):
        found = read_images(str(source)).fitted(GREY, 5, seed=0)
        np.testing.assert_array_equal(found[:, 0], images)


def test_the_seed_sets_the_first_image(mnist):
    folder, images = mnist
    found = read_images(str(folder)).fitted(GREY, 4, seed=3)
    # The first 4 images of the source, rotated by the seed: 3, 0, 1, 2.
    np.testing.assert_array_equal(found[:, 0], images[[3, 0, 1, 2]])
    many = read_images(str(folder)).fitted(GREY, 12, seed=0)
    np.testing.assert_array_equal(many[5:10], many[:5])


def test_files_of_a_folder_are_fitted_to_the_model(tmp_path):
    (tmp_path / "inner").mkdir()
    PIL.Image.new("RGB", (300, 200), (255, 0, 0)).save(tmp_path / "inner" / "a.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no image")
    images = read_images(str(tmp_path)).fitted(RGB, 2, seed=0)
    assert images.shape == (2, 3, 20, 30)
    assert images[0, 0].min() > 240
    assert images[0, 1].max() < 15
    assert read_images(str(tmp_path / "inner" / "a.jpg")).fitted(GREY, 1, 0).shape == (1, 1, 28, 28)


def test_bundled_digits():
    assert read_images("digits").fitted(GREY, 100, 0).shape == (100, 1, 28, 28)


def test_files_keep_the_pixels():
    images = read_images("digits").fitted(GREY, 2, 0)
    (png, _) = to_files(images, "png")
    assert png.startswith(b"\x89PNG")
    assert to_files(images, "jpeg")[0].startswith(b"\xff\xd8")
    colour = to_files(read_images("synthetic").fitted(RGB, 1, 0), "png")
    assert colour[0].startswith(b"\x89PNG")


def test_reports_unusable_sources(tmp_path):
    with pytest.raises(BadImages, match="neither the IDX files of MNIST nor image files"):
        read_images(str(tmp_path))
    broken = tmp_path / "x.png"
    broken.write_bytes(b"\x89PNG broken")
    with pytest.raises(BadImages, match=r"x\.png: not an image"):
        read_images(str(broken))
    with pytest.raises(FileNotFoundError):
        read_images(str(tmp_path / "nothing"))
    labels = tmp_path / "labels"
    write_idx(labels, np.arange(5, dtype=np.uint8))
    with pytest.raises(BadImages, match="expected \\[n, height, width\\]"):
        read_images(str(labels))
