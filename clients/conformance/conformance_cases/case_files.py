"""Tensors and image files of the cases: JSON documents and binary files."""

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
    """Maximum deviation of a value from the expected one: atol + rtol * |expected|."""

    atol: float
    rtol: float = 0.0


@dataclass
class CaseFiles:
    """Binary files of the cases, by path below the folder of the cases."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> str:
        """Add a file and return its path. Raises ValueError if the name has other bytes."""
        path = f"data/{name}"
        if self.contents.setdefault(path, data) != data:
            raise ValueError(f"two different files have the path {path}")
        return path

    def tensor(self, name: str, array: NDArray[Any], *, repeat: int = 1) -> Json:
        """Return an array as a tensor; `repeat` is the number of copies of its rows."""
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
        """Return an array as an expected tensor with its tolerance."""
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
    """Return a tensor of zero bytes; `byte_count` need not match the shape."""
    return {"dtype": data_type, "shape": shape, "data": {"zeros": byte_count}}
