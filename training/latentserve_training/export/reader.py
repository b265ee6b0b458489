"""A model as it was exported: its own code around ONNX Runtime, to be measured like any other.

The class of its kind is built anew, for all that a metric may ask of it, and its methods answer
from the graphs. Its weights are not in the export in a form that torch could take: they are set to
NaN, so that a figure that needs them comes out as NaN and never as a wrong number.
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
LARGE_LATENT_SCALE = 1e4  # latents so far out that a decoder which clips its output does so


@dataclass(frozen=True)
class ExportedModel:
    """An export, ready to be measured."""

    folder: Path
    manifest: dict[str, Any]
    config: RunConfig
    model: LatentModel
    decoder: onnxruntime.InferenceSession

    def store_metrics(self, metrics: dict[str, Any]) -> None:
        """Rewrite the manifest with these metrics, whole or not at all; no other file changes.

        Raises:
            ExportError: If the manifest would not be valid.
        """
        manifest = self.manifest | {"metrics": metrics}
        validate_manifest(manifest)
        write_json(self.folder / MANIFEST_FILE, manifest)


def load_export(folder: Path) -> ExportedModel:
    """Load ``exports/<name>/<version>/``.

    Raises:
        EvaluationError: If a file is missing or altered, or the configuration is not one of this
            version of the training code.
        ConfigError: If the configuration names what this version does not know.
    """
    manifest = _read_manifest(folder)
    config = parse_config(manifest["training"]["config"])
    image = manifest["image"]
    shape: ImageShape = (image["channels"], image["height"], image["width"])
    model = build_model(config, shape).eval()
    if model.latent_dim != manifest["latent"]["dim"]:
        raise EvaluationError(f"{folder}: the configuration and the manifest are of two models")
    clips = _clips(model)
    _erase_weights(model)
    sessions = {
        operation: start_session(_read(folder, graph["file"], manifest["files"]))
        for operation, graph in manifest["operations"].items()
    }
    decoder = sessions.get("decode") or sessions["sample"]
    answers: dict[str, Callable[..., Any]] = {"decode": _answer(decoder)}
    if not clips:
        answers["decode_unclipped"] = _answer(decoder)
    if "encode" in sessions:
        answers["encode"] = _answer(sessions["encode"])
    if session := sessions.get("reconstruct") or sessions.get("denoise"):
        answers["reconstruct"] = _answer(session)
    answers["likelihood"] = lambda: manifest["likelihood"]
    for name, answer in answers.items():
        setattr(model, name, answer)
    if mixture := manifest["latent"].get("mixture"):
        _read(folder, mixture["file"], manifest["files"])
        model.set_mixture(read_mixture(folder / mixture["file"]))
    return ExportedModel(folder, manifest, config, model, decoder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        validate_manifest(manifest)
    except (OSError, ValueError, ExportError) as error:
        raise EvaluationError(f"{folder} is no export of this version: {error}") from error
    return dict(manifest)


def _read(folder: Path, file: str, files: dict[str, dict[str, Any]]) -> bytes:
    """A file's content, which must be what the manifest says."""
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise EvaluationError(f"{folder / file} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != files.get(file, {}).get("sha256"):
        raise EvaluationError(
            f"{folder / file} is not the file that the manifest names by its sha256; export the "
            "run again"
        )
    return content


def _answer(session: onnxruntime.InferenceSession) -> Callable[[Tensor], Any]:
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
    """Whether what is served is cut to [0, 1]: then the graphs do not tell what came before."""
    unclipped = getattr(model, "decode_unclipped", model.decode)
    latents = LARGE_LATENT_SCALE * torch.randn(
        8, model.latent_dim, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        return not torch.equal(unclipped(latents), model.decode(latents))
