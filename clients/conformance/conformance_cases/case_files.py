"""Tensors and image files as the cases name them: JSON that points at binary files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

Json = dict[str, Any]

_DTYPES = {"float32": ("FLOAT32", "f32"), "float16": ("FLOAT16", "f16"), "uint8": ("UINT8", "u8")}


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from the expected one: atol + rtol * |expected|."""

    atol: float
    rtol: float = 0.0


@dataclass
class CaseFiles:
    """The binary files of the cases, by their path below the folder of the cases."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> str:
        """Keep a file and return its path; the same name twice must have the same bytes."""
        path = f"data/{name}"
        if self.contents.setdefault(path, data) != data:
            raise ValueError(f"two different files are called {path}")
        return path

    def tensor(self, name: str, array: NDArray[Any], *, repeat: int = 1) -> Json:
        """Return the tensor of an array; `repeat`: the file's rows that many times over."""
        data_type, ending = _DTYPES[array.dtype.name]
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        path = self.add(f"{name}.{ending}", little_endian.tobytes())
        shape = [len(array) * repeat, *array.shape[1:]]
        document: Json = {"dtype": data_type, "shape": shape, "data": {"file": path}}
        if repeat > 1:
            document["repeat"] = repeat
        return document

    def expected(
        self, name: str, array: NDArray[Any], tolerance: Tolerance, *, repeat: int = 1
    ) -> Json:
        """Return an expected tensor."""
        return {
            **self.tensor(name, array, repeat=repeat),
            "atol": tolerance.atol,
            "rtol": tolerance.rtol,
        }

    def image_file(
        self, name: str, pixels: NDArray[np.uint8], file_format: str = "PNG", **options: Any
    ) -> str:
        """Encode [height, width] or [height, width, 3 or 4] as a file and return its path."""
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, file_format, **options)
        return self.add(f"{name}.{'jpg' if file_format == 'JPEG' else 'png'}", buffer.getvalue())


def zeros(data_type: str, shape: list[int], byte_count: int) -> Json:
    """Return a tensor of so many zero bytes, which need not fit to the shape."""
    return {"dtype": data_type, "shape": shape, "data": {"zeros": byte_count}}
