"""Reader of the .npz files of a model folder, without pickled objects."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import Manifest


@contextlib.contextmanager
def opened_arrays(manifest: Manifest, file: str) -> Iterator[Any]:
    """Read `file` and yield its arrays by name; each is decompressed on access.

    Raises ManifestError, which names the file, if it or one of its arrays cannot be read.
    """
    content = io.BytesIO(manifest.read_file(file))
    try:
        with np.load(content, allow_pickle=False) as arrays:
            yield arrays
    except (
        *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError),
        *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: encrypted, unknown method
    ) as error:
        raise ManifestError(f"{file} is not usable: {error}") from error


def read_array(arrays: Any, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return one array, after a check that its header has this dtype and shape.

    So a file cannot use more memory than its manifest announces. Raises ValueError or KeyError.
    """
    with arrays.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"{name} is in npy format {version[0]}.{version[1]}, expected 1.0")
        found_shape, _, found = np.lib.format.read_array_header_1_0(member)
    if found != np.dtype(dtype) or found_shape != shape:
        raise ValueError(
            f"{name} is {found} {list(found_shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )
    array: NDArray[Any] = arrays[name]
    return array
