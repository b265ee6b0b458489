"""Manifest of an export, validated against the schema that the server uses."""

import json
import math
from importlib import resources
from typing import Any

import jsonschema

from latentserve_training.config import RunConfig
from latentserve_training.errors import ExportError
from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.gaussian_mixture import MIXTURE_FILE

SCHEMA_VERSION = 1
GOLDEN_FILE = "golden.npz"
GOLDEN_SEED = 11  # seed of the golden latents of the operation sample
GOLDEN_TOLERANCE = 1e-4  # allows for other processors and GPUs; the parity check uses 1e-5


def build_manifest(
    config: RunConfig,
    model: LatentModel,
    graphs: tuple[Graph, ...],
    version: int,
    files: dict[str, dict[str, Any]],
    evaluation: dict[str, Any],
    libraries: dict[str, str],
    revision: str,
    precision: str = "float32",
    tolerance: float = GOLDEN_TOLERANCE,
) -> dict[str, Any]:
    """Build a manifest.

    Args:
        config: The resolved configuration of the run.
        model: In evaluation mode.
        graphs: The exported graphs of the model.
        version: Model version, 1 or more.
        files: Name → sha256 and bytes, for every file of the folder except the manifest.
        evaluation: Result of ``trained_model.read_evaluation``.
        libraries: Library → version.
        revision: Revision of the training code.
        precision: Dtype of the computation in the graphs.
        tolerance: Tolerance of the golden outputs.
    """
    channels, height, width = model.image_shape
    operations = {
        operation: {
            "file": graph.file,
            "inputs": [graph.input_name],
            "outputs": list(graph.output_names),
        }
        for graph in graphs
        for operation in graph.operations
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "version": version,
        "kind": config.kind,
        "description": describe(config, model, evaluation, precision),
        "image": {"channels": channels, "height": height, "width": width},
        "latent": _latent(model),
        "operations": operations,
        # Omitted if it is the default, so that servers without this field can read the manifest.
        **({} if precision == "float32" else {"precision": precision}),
        "likelihood": model.likelihood(),
        "files": files,
        "golden": {
            "file": GOLDEN_FILE,
            "inputs": {
                operation: {name: golden_array(operation, name) for name in graph["inputs"]}
                for operation, graph in operations.items()
            },
            "outputs": {
                operation: {name: golden_array(operation, name) for name in graph["outputs"]}
                for operation, graph in operations.items()
            },
            "tolerance": tolerance,
        }
        | ({"sample_seed": GOLDEN_SEED} if "sample" in operations else {}),
        "training": {
            "config": config.as_dict(),
            "data": evaluation["data"],
            "seed": config.seed,
            "libraries": libraries,
            "revision": revision,
        },
        "metrics": evaluation["metrics"],
    }


def _latent(model: LatentModel) -> dict[str, Any]:
    latent: dict[str, Any] = {"dim": model.latent_dim, "prior": model.prior}
    if model.mixture is not None:
        latent["mixture"] = {"file": MIXTURE_FILE, "components": model.mixture.components}
    return latent


def golden_array(operation: str, tensor_name: str) -> str:
    """The name of a tensor in the golden file."""
    return f"{operation}_{tensor_name}"


def describe(
    config: RunConfig,
    model: LatentModel,
    evaluation: dict[str, Any],
    precision: str = "float32",
) -> str:
    """One sentence that describes the model to users."""
    channels, height, width = model.image_shape
    colour = " RGB" if channels == 3 else ""
    data = evaluation["data"]
    return (
        f"{model.title} with {model.latent_dim} latents for {height}×{width}{colour} images, "
        f"trained on {data['train_samples']:,} images of {data['name']}"
        f"{'' if precision == 'float32' else f'; computes in {precision}'}."
    )


def load_schema() -> dict[str, Any]:
    """The JSON schema of manifests, which the server uses as well."""
    text = (resources.files("latentserve_training") / "manifest.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def validate_manifest(manifest: dict[str, Any]) -> None:
    """Check a manifest against the schema, and that all metrics are finite.

    Raises:
        ExportError: If it is not valid; the message names the field.
    """
    errors = jsonschema.Draft202012Validator(load_schema()).iter_errors(manifest)
    if first := jsonschema.exceptions.best_match(errors):
        raise ExportError(f"the manifest is not valid at {first.json_path}: {first.message}")
    for name, metric in manifest["metrics"].items():
        if not math.isfinite(metric["value"]):
            raise ExportError(f"the metric {name} is {metric['value']}; train the model again")
