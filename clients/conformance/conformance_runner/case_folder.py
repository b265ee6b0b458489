"""Folder of cases: reads the cases, their files and arrays."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "FLOAT16": np.dtype("<f2"),
    "UINT8": np.dtype("u1"),
}
DEFAULT_DEADLINE_MS = 20_000


@dataclass(frozen=True)
class CaseFolder:
    """Folder of cases."""

    root: Path

    def read(self, groups: Collection[str] = ()) -> list[Json]:
        """Return the cases of these groups (all if empty). Raises ValueError for an unknown one."""
        index = json.loads((self.root / "index.json").read_text("utf-8"))
        documents = [json.loads((self.root / name).read_text("utf-8")) for name in index["groups"]]
        known = {document["group"] for document in documents}
        if unknown := set(groups) - known:
            raise ValueError(
                f"unknown group {', '.join(sorted(unknown))}; available: {sorted(known)}"
            )
        return [
            case
            for document in documents
            if not groups or document["group"] in groups
            for case in document["cases"]
        ]

    def data(self, spec: Json) -> bytes:
        """Return the bytes of {"file": PATH} or {"zeros": N}."""
        return bytes(spec["zeros"]) if "zeros" in spec else self.file(spec["file"])

    def file(self, path: str) -> bytes:
        """Return the contents of a file of the cases."""
        return (self.root / path).read_bytes()

    def tensor_bytes(self, tensor: Json) -> bytes:
        """Return all bytes of a tensor, repeats included."""
        return self.data(tensor["data"]) * int(tensor.get("repeat", 1))

    def array(self, tensor: Json) -> NDArray[Any]:
        """Return a tensor whose bytes match its shape."""
        flat: NDArray[Any] = np.frombuffer(self.tensor_bytes(tensor), DTYPES[tensor["dtype"]])
        return flat.reshape(tensor["shape"])
