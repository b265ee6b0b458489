"""Reader of a folder of PNG, JPEG and other image files.

=================================  =============================================
``a.png b.png …``                  images without labels
``cat/a.png … dog/b.png …``        one sub-folder per class, which gives the labels
``train/… test/…``                 one of these layouts in both folders
=================================  =============================================

Without ``train/`` and ``test/``, ``test_fraction`` of the images are held out. Files are read in
the order of the SHA-256 of their names: any prefix is a random subset of all classes, and the test
images depend neither on the seed nor on the machine. Names that start with a dot, and files without
the suffix of an image format, are ignored.
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from latentserve_training.data.config import DataConfig
from latentserve_training.data.images import Part, Source, held_out_count, require_memory
from latentserve_training.data.resize import decode
from latentserve_training.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pbm"}
)
PARTS = ("train", "test")


@dataclass(frozen=True)
class _Listing:
    """The files of one part, in the order of reading."""

    folder: Path
    files: Sequence[Path]
    classes: Sequence[str]  # sorted; empty if the files are directly in the folder

    def rows(self, chosen: slice) -> "_Listing":
        return _Listing(self.folder, self.files[chosen], self.classes)

    def labels(self) -> np.ndarray | None:
        if not self.classes:
            return None
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array(
            [numbers[path.relative_to(self.folder).parts[0]] for path in self.files], np.int64
        )


def read_image_folder(folder: Path, config: DataConfig) -> Source:
    """Read at most the configured number of files; each is resized when it is read.

    Raises:
        DataError: If there are no files, or one cannot be used, or they differ in size or colour
            and the configuration sets neither.
    """
    train, test = _list_parts(folder, config)
    train = train.rows(slice(config.max_train_images or None))
    test = test.rows(slice(config.max_test_images or None))
    # All images must match the first training image, so train/ and test/ are read together.
    images = _read_files([*train.files, *test.files], folder, config)
    split = len(train.files)
    return Source(
        folder.resolve().name,
        Part(images[:split], train.labels()),
        Part(images[split:].copy(), test.labels()),  # a view would keep all images in memory
    )


def _list_parts(folder: Path, config: DataConfig) -> tuple[_Listing, _Listing]:
    there = [(folder / part).is_dir() for part in PARTS]
    if not any(there):
        listing = _list_files(folder)
        held_out = held_out_count(len(listing.files), config.test_fraction, folder)
        return listing.rows(slice(held_out, None)), listing.rows(slice(held_out))
    if not all(there):
        have, lack = PARTS if there[0] else PARTS[::-1]
        raise DataError(
            f"{folder} holds {have}/ but no {lack}/; add it, or give {folder / have}, from which "
            "test images are then held out"
        )
    if others := [entry.name for entry in _entries(folder) if entry.name not in PARTS]:
        print(
            f"warning: {folder} holds train/ and test/; ignored: {', '.join(others)}",
            file=sys.stderr,
        )
    train, test = (_list_files(folder / part) for part in PARTS)
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"{folder}: train/ and test/ must have the same sub-folders, one per class; only one "
            f"of them has {', '.join(differing)}"
        )
    return train, test


def _list_files(folder: Path) -> _Listing:
    entries = _entries(folder)
    flat = [entry for entry in entries if _is_picture(entry)]
    classes = [entry.name for entry in entries if entry.is_dir()]
    if flat and classes:
        raise DataError(
            f"{folder} holds image files ({flat[0].name}) next to sub-folders ({classes[0]}); move "
            "the files into a sub-folder, or remove the sub-folders"
        )
    by_class = {name: _pictures_below(folder / name) for name in classes}
    files = flat + [path for paths in by_class.values() for path in paths]
    if not files:
        raise DataError(
            f"{folder} holds no images: neither image files ({' '.join(sorted(SUFFIXES))}), "
            "directly or in one sub-folder per class, nor the four files of MNIST, directly or in "
            "raw/ or MNIST/raw/; put images there, or add --download to download MNIST into it"
        )
    if empty := [name for name, paths in by_class.items() if not paths]:
        raise DataError(f"{folder / empty[0]} holds no image files; remove it, or add images")
    return _Listing(folder, sorted(files, key=lambda path: _rank(folder, path)), classes)


def _pictures_below(folder: Path) -> list[Path]:
    pictures = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # pruned from the walk
        pictures += [Path(place) / name for name in names if _is_picture(Path(place) / name)]
    return pictures


def _entries(folder: Path) -> list[Path]:
    """Image files and folders, sorted by name."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry.is_dir() or _is_picture(entry))
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _rank(folder: Path, path: Path) -> bytes:
    return hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()


def _read_files(files: Sequence[Path], folder: Path, config: DataConfig) -> np.ndarray:
    """Images, uint8 ``[n, c, h, w]``; a size or colour that is not set is that of the first."""
    images: np.ndarray | None = None
    progress = tqdm(files, desc="reading", unit="image", leave=False, disable=None)
    with warnings.catch_warnings(), progress:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, path in enumerate(progress):
            image = decode(path, config.channels, config.size)
            if images is None:
                require_memory(len(files) * image.size, folder)
                images = np.empty((len(files), *image.shape), np.uint8)
            _require_same(image.shape, path, images.shape[1:], files[0])
            images[row] = image
    if images is None:
        raise DataError(f"{folder} holds no images")
    return images


def _require_same(
    shape: tuple[int, ...], path: Path, first_shape: tuple[int, ...], first: Path
) -> None:
    if shape[0] != first_shape[0]:
        colours = {1: "grey", 3: "RGB"}
        raise DataError(
            f"{path} is {colours[shape[0]]}, {first} is {colours[first_shape[0]]}; set "
            "data.channels=1 to convert all to grey, or 3 for RGB"
        )
    if shape != first_shape:
        raise DataError(
            f"{path} is {shape[1]}×{shape[2]}, {first} is {first_shape[1]}×{first_shape[2]}; set "
            "data.image_size, for example 32, to resize them to one size"
        )
