"""Opens the .npz files of a model folder: plain numbers only, and a bad file is no crash."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_server.errors import ManifestError


@contextlib.contextmanager
def opened_arrays(folder: Path, file: str) -> Iterator[Any]:
    """Give the arrays of `file` by name, read when they are asked for.

    Raises ManifestError, naming the file, where it or one of the arrays cannot be read.
    """
    try:
        with (
            # Opened here, because np.load leaves a file that it cannot read open.
            (folder / file).open("rb") as opened,
            np.load(opened, allow_pickle=False) as arrays,
        ):
            yield arrays
    except (
        *(OSError, KeyError, ValueError, TypeError, EOFError, MemoryError),
        *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: encrypted, or by no method
    ) as error:
        raise ManifestError(f"{file} is not usable: {error}") from error


def read_array(arrays: Any, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return one array, after its header promised exactly this type and shape.

    So a file costs no more memory than its manifest announced. Raises ValueError or KeyError.
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
