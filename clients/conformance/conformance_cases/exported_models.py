"""Exported models, run directly in ONNX Runtime, and samples of the documented generator."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import reference_draw

Floats = NDArray[np.float32]


class ExportedModel:
    """One model version: its manifest, its graphs and its prior."""

    def __init__(self, folder: Path) -> None:
        raw = (folder / "manifest.json").read_bytes()
        self.manifest: dict[str, Any] = json.loads(raw)
        self.digest = hashlib.sha256(raw).hexdigest()
        self.name: str = self.manifest["name"]
        self.version: int = self.manifest["version"]
        self.dim: int = self.manifest["latent"]["dim"]
        self._folder = folder
        self._sessions: dict[str, Any] = {}

    @property
    def has_log_variance(self) -> bool:
        """Whether `encode` returns a log variance."""
        encode = self.manifest["operations"].get("encode")
        return encode is not None and len(encode["outputs"]) == 2

    def run(self, operation: str, rows: Floats) -> list[Floats]:
        """Run one operation on float32 rows; outputs in the order of the manifest."""
        spec = self.manifest["operations"][operation]
        if spec["file"] not in self._sessions:
            self._sessions[spec["file"]] = onnxruntime.InferenceSession(
                str(self._folder / spec["file"]), providers=["CPUExecutionProvider"]
            )
        outputs: list[Floats] = self._sessions[spec["file"]].run(
            spec["outputs"], {spec["inputs"][0]: rows}
        )
        return outputs

    def sample_latents(self, seed: int, offset: int, rows: int, temperature: float = 1.0) -> Floats:
        """Return the expected latents of Sample, float32 [rows, dim]."""
        span = range(offset, offset + rows)
        latent = self.manifest["latent"]
        if latent["prior"] == "standard_normal":
            latents = [
                reference_draw.normal_row(seed, reference_draw.PRIOR, row, self.dim, temperature)
                for row in span
            ]
            return np.array(latents, np.float64).astype(np.float32)
        with np.load(self._folder / latent["mixture"]["file"]) as mixture:
            weights, means = mixture["weights"].tolist(), mixture["means"].tolist()
            factors = mixture["factors"].tolist()
        return np.array(
            [
                reference_draw.mixture_row(weights, means, factors, seed, row, temperature)
                for row in span
            ],
            np.float32,
        )

    def posterior(self, mean: Floats, log_variance: Floats, seed: int) -> Floats:
        """Return the expected sample from q(z|x) of Encode with a seed, float32 [n, dim]."""
        noise = np.array(
            [
                reference_draw.normal_row(seed, reference_draw.POSTERIOR, row, self.dim)
                for row in range(len(mean))
            ],
            np.float64,
        ).astype(np.float32)
        latents = mean + np.exp(log_variance.astype(np.float64) / 2) * noise
        return latents.astype(np.float32)


def read_exports(root: Path) -> dict[str, ExportedModel]:
    """Return the highest version of every model, by name."""
    models = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        highest = max(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        models[folder.name] = ExportedModel(folder / str(highest))
    return models


def to_uint8(images: Floats) -> NDArray[np.uint8]:
    """Return images as 0 to 255: clamped, times 255, rounded half to even."""
    levels: NDArray[np.uint8] = np.rint(np.clip(images, 0, 1) * np.float32(255)).astype(np.uint8)
    return levels


def squared_error(images: Floats, reconstruction: Floats) -> Floats:
    """Return the squared error of each image, summed over channels and pixels, [n]."""
    difference = images.astype(np.float64) - reconstruction.astype(np.float64)
    summed: Floats = np.square(difference).reshape(len(images), -1).sum(axis=1).astype(np.float32)
    return summed
