"""Reader of an export as a model that runs in ONNX Runtime, for evaluation.

It builds an instance of the class of its kind, which metrics need, and replaces its methods by
calls of the graphs. An export does not contain weights that torch can load, so the weights are set
to NaN: a metric that uses them becomes NaN and never a wrong value.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from latentserve_training.config import RunConfig, parse_config
from latentserve_training.errors import EvaluationError, ExportError
from latentserve_training.export.manifest import validate_manifest
from latentserve_training.graphs.conversion import start_session
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.gaussian_mixture import read_mixture
from latentserve_training.pixels import ImageShape
from latentserve_training.train.loop import build_model
from latentserve_training.train.run_folder import write_json

MANIFEST_FILE = "manifest.json"
LARGE_LATENT_SCALE = 1e4  # latents of this scale give outputs outside [0, 1] before clipping


@dataclass(frozen=True)
class ExportedModel:
    """An export that is loaded for evaluation."""

    folder: Path
    manifest: dict[str, Any]
    config: RunConfig
    model: LatentModel
    decoder: onnxruntime.InferenceSession

    def store_metrics(self, metrics: dict[str, Any]) -> None:
        """Rewrite the manifest atomically with these metrics; no other file changes.

        Raises:
            ExportError: If the manifest would not be valid.
        """
        manifest = self.manifest | {"metrics": metrics}
        validate_manifest(manifest)
        write_json(self.folder / MANIFEST_FILE, manifest)


def load_export(folder: Path) -> ExportedModel:
    """Load ``exports/<name>/<version>/``.

    Raises:
        EvaluationError: If a file is missing or altered, or the configuration does not match the
            manifest.
        ConfigError: If the configuration is not valid in this version of the code.
    """
    manifest = _read_manifest(folder)
    config = parse_config(manifest["training"]["config"])
    image = manifest["image"]
    shape: ImageShape = (image["channels"], image["height"], image["width"])
    model = build_model(config, shape).eval()
    if model.latent_dim != manifest["latent"]["dim"]:
        raise EvaluationError(f"{folder}: the configuration and the manifest differ in latent_dim")
    clips = _clips(model)
    _erase_weights(model)
    sessions = {
        operation: start_session(_read(folder, graph["file"], manifest["files"]))
        for operation, graph in manifest["operations"].items()
    }
    decoder = sessions.get("decode") or sessions["sample"]
    methods: dict[str, Callable[..., Any]] = {"decode": _run_session(decoder)}
    if not clips:
        methods["decode_unclipped"] = _run_session(decoder)
    if "encode" in sessions:
        methods["encode"] = _run_session(sessions["encode"])
    if session := sessions.get("reconstruct") or sessions.get("denoise"):
        methods["reconstruct"] = _run_session(session)
    methods["likelihood"] = lambda: manifest["likelihood"]
    for name, method in methods.items():
        setattr(model, name, method)
    if mixture := manifest["latent"].get("mixture"):
        _read(folder, mixture["file"], manifest["files"])
        model.set_mixture(read_mixture(folder / mixture["file"]))
    return ExportedModel(folder, manifest, config, model, decoder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        validate_manifest(manifest)
    except (OSError, ValueError, ExportError) as error:
        raise EvaluationError(f"{folder} is not a valid export: {error}") from error
    return dict(manifest)


def _read(folder: Path, file: str, files: dict[str, dict[str, Any]]) -> bytes:
    """The content of a file, whose sha256 must be that of the manifest."""
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise EvaluationError(f"{folder / file} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != files.get(file, {}).get("sha256"):
        raise EvaluationError(
            f"{folder / file} does not have the sha256 that the manifest records; export the run "
            "again"
        )
    return content


def _run_session(session: onnxruntime.InferenceSession) -> Callable[[Tensor], Any]:
    input_name = session.get_inputs()[0].name

    def run(batch: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = session.run(None, {input_name: batch.float().numpy()})
        tensors = tuple(torch.from_numpy(output) for output in outputs)
        return tensors if len(tensors) > 1 else tensors[0]

    return run


def _erase_weights(model: LatentModel) -> None:
    for weights in (*model.parameters(), *model.buffers()):
        if weights.is_floating_point():
            weights.data.fill_(torch.nan)


def _clips(model: LatentModel) -> bool:
    """Whether decode clips to [0, 1]; the graphs then do not give unclipped outputs."""
    unclipped = getattr(model, "decode_unclipped", model.decode)
    latents = LARGE_LATENT_SCALE * torch.randn(
        8, model.latent_dim, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        return not torch.equal(unclipped(latents), model.decode(latents))
