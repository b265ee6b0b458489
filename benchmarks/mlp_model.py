"""Export of the benchmark model, a 784-400-20-400-784 autoencoder with random weights.

Only the cost of a run matters, not the output. Needs `onnx`, which training installs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAME = "bench-mlp"
SIDE = 28
HIDDEN = 400
LATENT = 20

_PIXELS = SIDE * SIDE


def write_export(root: Path, name: str = NAME, hidden: int = HIDDEN) -> Path:
    """Write `root`/`name`/1 with `hidden` hidden units, and return the folder."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    graph = folder / "reconstruct.onnx"
    onnx.save(_autoencoder(hidden), graph)
    images = np.random.default_rng(0).random((2, 1, SIDE, SIDE), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    golden: dict[str, NDArray[Any]] = {"images": images}
    golden["reconstruction"] = session.run(None, {"images": images})[0]
    np.savez(folder / "golden.npz", **golden)  # type: ignore[arg-type]  # numpy's stub is narrow
    manifest = {
        "schema_version": 1,
        "name": name,
        "version": 1,
        "kind": "autoencoder",
        "description": "An autoencoder with random weights, for benchmarks.",
        "image": {"channels": 1, "height": SIDE, "width": SIDE},
        "latent": {"dim": LATENT, "prior": "none"},
        "operations": {
            "reconstruct": {
                "file": graph.name,
                "inputs": ["images"],
                "outputs": ["reconstruction"],
            }
        },
        "likelihood": None,
        "files": {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in (graph, folder / "golden.npz")
        },
        "golden": {
            "file": "golden.npz",
            "inputs": {"reconstruct": {"images": "images"}},
            "outputs": {"reconstruct": {"reconstruction": "reconstruction"}},
            "tolerance": 1e-4,
        },
        "training": {
            "config": {},
            "data": {"name": "none", "sha256": "0" * 64, "train_samples": 1},
            "seed": 0,
            "libraries": {},
            "revision": "unknown",
        },
        "metrics": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return folder


def _autoencoder(hidden: int) -> onnx.ModelProto:
    halves = ((_PIXELS, hidden, "Relu"), (hidden, LATENT, ""), (LATENT, hidden, "Relu"))
    layers = (*halves, (hidden, _PIXELS, "Sigmoid"))
    generator = np.random.default_rng(1)
    nodes = [helper.make_node("Flatten", ["images"], ["h0"], axis=1)]
    weights = [numpy_helper.from_array(np.array([-1, 1, SIDE, SIDE], dtype=np.int64), "shape")]
    for index, (wide, out, activation) in enumerate(layers):
        weight = (generator.standard_normal((wide, out)) / np.sqrt(wide)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(out, dtype=np.float32), f"b{index}"))
        linear = f"a{index}" if activation else f"h{index + 1}"
        nodes.append(helper.make_node("Gemm", [f"h{index}", f"w{index}", f"b{index}"], [linear]))
        if activation:
            nodes.append(helper.make_node(activation, [linear], [f"h{index + 1}"]))
    nodes.append(helper.make_node("Reshape", [f"h{len(layers)}", "shape"], ["reconstruction"]))
    shape: list[str | int | None] = ["batch", 1, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "reconstruct",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
