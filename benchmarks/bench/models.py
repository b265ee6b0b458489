"""Models of the benchmark: a generated MLP, and copies of shipped exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import mlp_model
from bench.cells import CONV, DENOISER, GENERATOR

OPERATIONS = {"SampleStream": "sample"}
"""Operation of a call, if it is not the call's name in lower case."""


@dataclass(frozen=True)
class Model:
    """A model folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Model:
        """Read the manifest of a model folder."""
        return cls(folder, json.loads((folder / "manifest.json").read_text("utf-8")))

    @property
    def name(self) -> str:
        """The name of the served model."""
        return str(self.manifest["name"])

    def row_shape(self, rpc: str) -> tuple[int, ...]:
        """Return the shape of one input row of a call's graph."""
        if operation(rpc) in ("decode", "sample"):
            return (int(self.manifest["latent"]["dim"]),)
        image = self.manifest["image"]
        return (image["channels"], image["height"], image["width"])

    def graph(self, rpc: str) -> Path:
        """Return the graph of a call."""
        return self.folder / str(self.manifest["operations"][operation(rpc)]["file"])

    def tensors(self, rpc: str) -> tuple[str, str]:
        """Return the names of the graph's input and of its first output."""
        spec = self.manifest["operations"][operation(rpc)]
        return spec["inputs"][0], spec["outputs"][0]

    def rows(self, rpc: str, count: int) -> NDArray[np.float32]:
        """Return random rows for a call: images in [0, 1], or latents."""
        generator, shape = np.random.default_rng(count), (count, *self.row_shape(rpc))
        if operation(rpc) in ("decode", "sample"):
            return generator.standard_normal(shape, dtype=np.float32)
        return generator.random(shape, dtype=np.float32)

    def expected(self, rpc: str, count: int) -> NDArray[np.float32]:
        """Return the output of the graph alone for these rows."""
        session = onnxruntime.InferenceSession(
            str(self.graph(rpc)), providers=["CPUExecutionProvider"]
        )
        input_name, output_name = self.tensors(rpc)
        inputs = {input_name: self.rows(rpc, count)}
        outputs: list[NDArray[np.float32]] = session.run([output_name], inputs)
        return outputs[0]


def operation(rpc: str) -> str:
    """Return the operation of a call, as named in the manifest."""
    return OPERATIONS.get(rpc, rpc.lower())


def write_models(exports: Path, root: Path) -> dict[str, Model]:
    """Write the exports folder `root` of the server; return its models by name.

    Raises SystemExit if `exports` lacks one of the shipped models.
    """
    found = {mlp_model.NAME: Model.read(mlp_model.write_export(root))}
    for name in (CONV, GENERATOR, DENOISER):
        versions = sorted((exports / name).glob("[1-9]*"), key=lambda folder: int(folder.name))
        if not versions:
            raise SystemExit(f"{exports} has no model {name}")
        target = root / name / versions[-1].name
        shutil.copytree(versions[-1], target)
        found[name] = Model.read(target)
    return found


def write_copies(root: Path, count: int) -> list[Model]:
    """Write `count` small models: MLPs with 16 hidden units that differ only in their names."""
    return [
        Model.read(mlp_model.write_export(root, f"copy-{number}", hidden=16))
        for number in range(count)
    ]
