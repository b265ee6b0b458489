"""Builder of exports folders with tiny models, in milliseconds and without torch.

The models have a few hundred fixed weights, so tests compute the expected outputs with numpy.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reference_draw import mixture_row

SIZE = 4
PIXELS = SIZE * SIZE
DIM = 3
Floats = NDArray[np.float32]

_generator = np.random.default_rng(7)
ENCODER = (_generator.standard_normal((PIXELS, DIM)) / PIXELS).astype(np.float32)
LOG_VARIANCE = (_generator.standard_normal((PIXELS, DIM)) / PIXELS).astype(np.float32)
DECODER = _generator.standard_normal((DIM, PIXELS)).astype(np.float32)

# Three components, far apart in the first latent, so that a test can distinguish them.
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-9, 0, 1], [0, 1, 0], [9, 0, -1]], dtype=np.float32)
FACTORS = np.array(
    [
        [[1.0, 0, 0], [0.5, 0.25, 0], [-0.3, 0.7, 0.1]],
        [[0.2, 0, 0], [0.0, 0.3, 0], [0.0, 0.0, 0.4]],
        [[0.9, 0, 0], [-0.9, 0.1, 0], [0.6, 0.6, 0.6]],
    ],
    dtype=np.float32,
)
SAMPLE_SEED = 2**64 - 1

KINDS = {
    "autoencoder": ("encode", "decode", "reconstruct"),
    "denoising": ("encode", "decode", "reconstruct", "denoise"),
    "vae": ("encode", "decode", "reconstruct", "sample"),
    "gan": ("decode", "sample"),
}


def encode(images: Floats) -> Floats:
    """Return the mean latents of every tiny model, [n, DIM]."""
    return images.reshape(len(images), PIXELS) @ ENCODER


def log_variance(images: Floats) -> Floats:
    """Return the log-variance of the tiny VAE, [n, DIM]."""
    return images.reshape(len(images), PIXELS) @ LOG_VARIANCE


def decode(latents: Floats) -> Floats:
    """Return the images of every tiny model, [n, 1, SIZE, SIZE]."""
    return (1.0 / (1.0 + np.exp(-(latents @ DECODER)))).reshape(-1, 1, SIZE, SIZE)


def images(rows: int, seed: int = 0) -> Floats:
    """Return random images in [0, 1], [rows, 1, SIZE, SIZE]."""
    return np.random.default_rng(seed).random((rows, 1, SIZE, SIZE), dtype=np.float32)


def mixture(seed: int, offset: int, rows: int, temperature: float = 1.0) -> Floats:
    """Return the latents that are sampled from the tiny mixture, [rows, DIM]."""
    weights, means, factors = WEIGHTS.tolist(), MEANS.tolist(), FACTORS.tolist()
    sampled = [
        mixture_row(weights, means, factors, seed, offset + row, temperature) for row in range(rows)
    ]
    return np.array(sampled, dtype=np.float32)


def write_model(
    root: Path,
    name: str,
    *,
    kind: str = "vae",
    version: int = 1,
    tolerance: float = 1e-5,
    with_mixture: bool = False,
) -> Path:
    """Write <root>/<name>/<version>/ and return it.

    If `with_mixture`, the model samples from a Gaussian mixture, and its golden file has samples.
    """
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    operations = KINDS[kind]
    prior = "standard_normal" if "sample" in operations else "none"
    if with_mixture:
        operations, prior = (*operations, "sample"), "gaussian_mixture"
        np.savez(folder / "prior.npz", weights=WEIGHTS, means=MEANS, factors=FACTORS)
    x, z = images(2), np.ones((2, DIM), dtype=np.float32)
    sampled = mixture(SAMPLE_SEED, 0, 5) if with_mixture else z
    table: dict[str, tuple[dict[str, Any], list[Floats], list[Floats]]] = {
        "encode": (_spec("encode", "images", "mean"), [x], [encode(x)]),
        "decode": (_spec("decode", "latents", "images"), [z], [decode(z)]),
        "sample": (_spec("decode", "latents", "images"), [sampled], [decode(sampled)]),
        "reconstruct": (
            _spec("reconstruct", "images", "reconstruction"),
            [x],
            [decode(encode(x))],
        ),
        "denoise": (_spec("reconstruct", "images", "reconstruction"), [x], [decode(encode(x))]),
    }
    if kind == "vae":
        table["encode"][0]["outputs"].append("log_variance")
        table["encode"][2].append(log_variance(x))
    arrays: dict[str, Floats] = {}
    golden: dict[str, dict[str, dict[str, str]]] = {"inputs": {}, "outputs": {}}
    for operation in operations:
        spec, inputs, outputs = table[operation]
        for group, names, values in (
            ("inputs", spec["inputs"], inputs),
            ("outputs", spec["outputs"], outputs),
        ):
            golden[group][operation] = {tensor: f"{operation}.{tensor}" for tensor in names}
            for tensor, value in zip(names, values, strict=True):
                arrays[f"{operation}.{tensor}"] = value
    np.savez(folder / "golden.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub is narrow
    for file in {table[operation][0]["file"] for operation in operations}:
        onnx.save(_graph(file.removesuffix(".onnx"), kind), folder / file)
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "version": version,
        "kind": kind,
        "description": f"A tiny {kind} for tests.",
        "image": {"channels": 1, "height": SIZE, "width": SIZE},
        "latent": {"dim": DIM, "prior": prior},
        "operations": {operation: table[operation][0] for operation in operations},
        "likelihood": {"family": "gaussian", "sigma": 0.1} if kind == "vae" else None,
        "files": {},
        "golden": {"file": "golden.npz", **golden, "tolerance": tolerance},
        "training": {
            "config": {},
            "data": {"name": "none", "sha256": "0" * 64, "train_samples": 1},
            "seed": 0,
            "libraries": {},
            "revision": "unknown",
        },
        "metrics": {
            "test_mse": {
                "value": 0.25,
                "unit": "squared error per pixel",
                "baseline": {"name": "PCA-3", "value": 0.5},
                "samples": 2,
                "estimator": "mean over two random images",
            }
        },
    }
    if with_mixture:
        manifest["latent"]["mixture"] = {"file": "prior.npz", "components": len(WEIGHTS)}
        manifest["golden"]["sample_seed"] = SAMPLE_SEED
    write_manifest(folder, manifest)
    return folder


def write_manifest(folder: Path, manifest: dict[str, Any], *, list_files: bool = True) -> None:
    """Write a manifest; if `list_files`, fill `files` from the folder's files."""
    if list_files:
        manifest["files"] = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for path in sorted(folder.iterdir())
            if path.name != "manifest.json"
        }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, which a test changes and writes back."""
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return document


def _spec(file: str, source: str, target: str) -> dict[str, Any]:
    return {"file": f"{file}.onnx", "inputs": [source], "outputs": [target]}


def _graph(role: str, kind: str) -> onnx.ModelProto:
    image_shape = ["batch", 1, SIZE, SIZE]
    latent_shape = ["batch", DIM]
    nodes = []
    weights = {}
    if role in ("encode", "reconstruct"):
        nodes.append(helper.make_node("Flatten", ["images"], ["flat"], axis=1))
        nodes.append(helper.make_node("MatMul", ["flat", "encoder"], ["mean"]))
        weights["encoder"] = ENCODER
        inputs = [("images", image_shape)]
    if role == "encode":
        outputs = [("mean", latent_shape)]
        if kind == "vae":
            nodes.append(helper.make_node("MatMul", ["flat", "spread"], ["log_variance"]))
            weights["spread"] = LOG_VARIANCE
            outputs.append(("log_variance", latent_shape))
    else:
        result = "images" if role == "decode" else "reconstruction"
        code = "latents" if role == "decode" else "mean"
        nodes.append(helper.make_node("MatMul", [code, "decoder"], ["logits"]))
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["pixels"]))
        nodes.append(helper.make_node("Reshape", ["pixels", "shape"], [result]))
        weights["decoder"] = DECODER
        outputs = [(result, image_shape)]
        if role == "decode":
            inputs = [("latents", latent_shape)]
    constants = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    if role != "encode":
        shape = np.array([-1, 1, SIZE, SIZE], dtype=np.int64)
        constants.append(numpy_helper.from_array(shape, "shape"))
    graph = helper.make_graph(
        nodes,
        role,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
