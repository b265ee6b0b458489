"""Reader of an ``.npz`` file of numpy arrays.

=====================================  =========================================
``x_train``, ``x_test``                names used by Keras; labels: ``y_train``, ``y_test``
``images``                             labels: ``labels``
``arr_0``                              written by ``numpy.savez(file, images)``; no labels
=====================================  =========================================

Labels are optional. Without ``x_test``, ``test_fraction`` of the images are held out, the same for
every seed. Pickled objects are never loaded, because they can run code.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from latentserve_training.data.config import DataConfig
from latentserve_training.data.images import Part, Source, held_out_count, require_memory
from latentserve_training.errors import DataError

LAYOUTS = (  # images, labels, test images, test labels
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels", "", ""),
    ("arr_0", "", "", ""),
)
EXPECTED = "x_train and x_test (with y_train and y_test), images (with labels), or arr_0"
CHUNK_IMAGES = 5000
HELD_OUT_SEED = 0  # independent of the run, so that runs with other seeds have the same test images


def read_npz(path: Path, config: DataConfig) -> Source:
    """Read uint8 images, or floats in [0, 1], which are rounded to 8 bits.

    Shapes are ``[n, h, w]``, ``[n, h, w, c]`` or ``[n, c, h, w]`` with c = 1 or 3.

    Raises:
        DataError: If it is not such a file, or an array has another dtype, shape or range.
    """
    (train_images, train_labels, test_images, test_labels), arrays = _read_arrays(path)
    train = _part(path, arrays, train_images, train_labels)
    if test_images in arrays:
        test = _part(path, arrays, test_images, test_labels)
        if (train.labels is None) != (test.labels is None):
            raise DataError(f"{path} holds only one of {train_labels} and {test_labels}")
        return Source(path.stem, train, test)
    count = len(train.images)
    held_out = held_out_count(count, config.test_fraction, path)
    order = np.random.default_rng(HELD_OUT_SEED).permutation(count)
    return Source(
        path.stem, train.rows(np.sort(order[held_out:])), train.rows(np.sort(order[:held_out]))
    )


def _read_arrays(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The array names of the layout of the file, and the arrays that it contains."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} is not an .npz file, or is truncated; give a file written by numpy.savez, a "
            "folder, or the name of a data set"
        )
    try:
        with zipfile.ZipFile(path) as members:
            # Before unpacking, because a small file may hold terabytes of zeros.
            require_memory(sum(member.file_size for member in members.infolist()), path)
        with np.load(path, allow_pickle=False) as file:
            names = next((each for each in LAYOUTS if each[0] in file.files), None)
            if names is None:
                there = ", ".join(file.files) or "nothing"
                raise DataError(f"{path} holds {there}; expected {EXPECTED}")
            return names, {name: _read_array(path, file, name) for name in names if name in file}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; write it again") from error


def _read_array(path: Path, file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        array = file[name]
    except ValueError as error:
        raise DataError(
            f"{path}: {name} is not a numeric array ({error}); save it with a numeric dtype, such "
            "as uint8: pickled objects are never loaded"
        ) from error
    if not isinstance(array, np.ndarray):  # numpy returns the bytes of members in other formats
        raise DataError(f"{path}: {name} is not a numpy array; write it with numpy.savez")
    return array


def _part(path: Path, arrays: Mapping[str, np.ndarray], images: str, labels: str) -> Part:
    pixels = _channels_first(f"{path}: {images}", _to_uint8(f"{path}: {images}", arrays[images]))
    if labels not in arrays:
        return Part(pixels)
    return Part(pixels, _classes(f"{path}: {labels}", arrays[labels], len(pixels)))


def _to_uint8(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{name} has the dtype {array.dtype}; expected uint8, or floats in [0, 1]. Convert "
            "integers from 0 to 255 with .astype(numpy.uint8)"
        )
    converted = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), CHUNK_IMAGES):
        chunk = array[start : start + CHUNK_IMAGES]
        if not np.isfinite(chunk).all():
            raise DataError(f"{name} holds NaN or infinity; remove these images")
        low, high = float(chunk.min(initial=0)), float(chunk.max(initial=0))
        if low < 0 or high > 1:
            raise DataError(
                f"{name} holds values from {low:g} to {high:g}; floats must lie in [0, 1]: scale "
                "them, or save uint8"
            )
        converted[start : start + CHUNK_IMAGES] = np.rint(chunk.astype(np.float64) * 255)
    return converted


def _channels_first(name: str, array: np.ndarray) -> np.ndarray:
    if array.size == 0:
        raise DataError(f"{name} has the shape {list(array.shape)}: no pixels")
    if array.ndim == 3:
        return array[:, None]
    first, last = (array.ndim == 4 and array.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        problem = "whose channel axis is ambiguous" if first else "which is not one of images"
        raise DataError(
            f"{name} has the shape {list(array.shape)}, {problem}; expected [n, h, w], "
            "[n, h, w, c] or [n, c, h, w] with 1 or 3 channels c"
        )
    return array if first else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _classes(name: str, array: np.ndarray, count: int) -> np.ndarray:
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array  # [n, 1] in Keras
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{name} is {labels.dtype} of shape {list(array.shape)}; expected one integer per "
            "image. Convert one-hot rows with .argmax(1)"
        )
    if len(labels) != count:
        raise DataError(f"{name} holds {len(labels)} labels for {count} images")
    if labels.min() < 0 or labels.max() >= max(count, 1000):
        raise DataError(
            f"{name} holds labels from {labels.min()} to {labels.max()}; number the classes from 0"
        )
    return labels
