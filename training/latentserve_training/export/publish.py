"""Export of a finished run to ``exports/<name>/<version>/``, published atomically.

All files are written into a hidden folder next to the target, checked, and published by one rename:
a server that watches the folder never reads an incomplete model.
"""

import hashlib
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from latentserve_training.config import parse_config
from latentserve_training.errors import ExportError
from latentserve_training.export.manifest import (
    GOLDEN_FILE,
    GOLDEN_SEED,
    GOLDEN_TOLERANCE,
    build_manifest,
    golden_array,
    validate_manifest,
)
from latentserve_training.export.sampling import sample_latents
from latentserve_training.graphs.conversion import (
    check_parity,
    convert,
    inspect,
    run_torch,
    start_session,
)
from latentserve_training.graphs.float16 import (
    FLOAT16_PARITY_TOLERANCE,
    difference_in_float16,
    golden_tolerance,
    to_float16,
)
from latentserve_training.graphs.spec import Graph
from latentserve_training.models.base import LatentModel
from latentserve_training.nn.gaussian_mixture import MIXTURE_FILE
from latentserve_training.pixels import to_float
from latentserve_training.provenance import UNKNOWN, library_versions, source_revision
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.run_folder import RunFolder
from latentserve_training.train.trained_model import (
    load_finished_model,
    read_evaluation,
    read_examples,
)

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Export:
    """A published model version."""

    folder: Path
    version: int
    bytes: int  # size of the folder
    largest_difference: float  # between torch and ONNX Runtime
    precision: str


def export_run(
    run: RunFolder,
    exports: Path,
    version: int | None = None,
    force: bool = False,
    revision: str | None = None,
    precision: str = "float32",
) -> Export:
    """Export the best checkpoint of a finished run.

    Args:
        run: Run folder written by the command ``train``.
        exports: Folder of all models; created if missing.
        version: None for the next free version.
        force: Replace the version if it exists.
        revision: Revision of the training code to record; None for that of the run or, if the run
            has none, the current one.
        precision: Dtype of the computation, one of PRECISIONS; inputs and outputs are float32.

    Raises:
        CheckpointError: If the run is not finished or cannot be read.
        ConfigError: If its configuration is not valid in this version of the code.
        ExportError: If the version exists, or a check fails; nothing is published then.
    """
    checkpoint = load_checkpoint(run.best)
    config = parse_config(checkpoint.config)
    evaluation = read_evaluation(run)
    target = _choose_target(exports / config.name, version, force)
    model = load_finished_model(config, checkpoint, run)
    graphs = model.graphs()
    libraries = evaluation["libraries"] | library_versions()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        largest_difference = 0.0
        onnx_models: dict[str, onnx.ModelProto] = {}
        for graph in graphs:
            proto, difference = checked_graph(graph, model, precision)
            largest_difference = max(largest_difference, difference)
            (staging / graph.file).write_bytes(proto.SerializeToString(deterministic=True))
            onnx_models[graph.file] = proto
        if model.mixture is not None:
            (staging / MIXTURE_FILE).write_bytes(model.mixture.to_bytes())
        golden = golden_arrays(model, graphs, to_float(read_examples(run)))
        tolerance = check_golden(onnx_models, graphs, golden, precision)
        (staging / GOLDEN_FILE).write_bytes(_npz_bytes(golden))
        manifest = build_manifest(
            config,
            model,
            graphs,
            int(target.name),
            {path.name: _describe_file(path) for path in sorted(staging.iterdir())},
            evaluation,
            libraries,
            revision or _recorded_revision(evaluation["revision"]),
            precision,
            tolerance,
        )
        validate_manifest(manifest)
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (staging / MANIFEST_FILE).write_text(text, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp sets 0700, which a server with another user cannot read
        size = sum(path.stat().st_size for path in staging.iterdir())
        _publish(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Export(target, int(target.name), size, largest_difference, precision)


def checked_graph(
    graph: Graph, model: LatentModel, precision: str
) -> tuple[onnx.ModelProto, float]:
    """Convert a graph and check it; return it and its largest difference from torch.

    Raises:
        ExportError: If a check fails.
    """
    proto = convert(graph.evaluating(), model.image_shape, model.latent_dim)
    difference = check_parity(proto, graph, model.image_shape, model.latent_dim)
    if precision == "float16":
        proto = to_float16(proto, graph.file)
        inspect(proto, graph.file)
        difference = check_parity(
            proto, graph, model.image_shape, model.latent_dim, FLOAT16_PARITY_TOLERANCE
        )
    return proto, difference


def golden_arrays(
    model: LatentModel, graphs: tuple[Graph, ...], images: torch.Tensor
) -> dict[str, np.ndarray]:
    """Golden inputs and outputs of torch for every operation.

    Args:
        model: In evaluation mode.
        graphs: The graphs of the model.
        images: Float ``[n, c, h, w]``. The inputs of decode are the latents of these images; those
            of sample are latents from the prior with GOLDEN_SEED, sampled as in the server.
    """
    generator = torch.Generator().manual_seed(GOLDEN_SEED)
    by_operation = {operation: graph for graph in graphs for operation in graph.operations}
    arrays: dict[str, np.ndarray] = {}
    encoded = torch.randn(len(images), model.latent_dim, generator=generator)
    if "encode" in by_operation:
        encoded = torch.from_numpy(run_torch(by_operation["encode"], images)[0])
    for operation, graph in by_operation.items():
        if operation == "sample":
            sampled = sample_latents(GOLDEN_SEED, len(images), model.latent_dim, model.mixture)
            inputs = torch.from_numpy(sampled)
        else:
            inputs = model.golden_input(operation, images, encoded, generator)
        arrays[golden_array(operation, graph.input_name)] = inputs.numpy()
        for name, output in zip(graph.output_names, run_torch(graph, inputs), strict=True):
            arrays[golden_array(operation, name)] = output
    return arrays


def check_golden(
    onnx_models: dict[str, onnx.ModelProto],
    graphs: tuple[Graph, ...],
    golden: dict[str, np.ndarray],
    precision: str = "float32",
) -> float:
    """Check the golden outputs in ONNX Runtime, as the server will; return their tolerance.

    Raises:
        ExportError: If an output differs by more than a manifest of that precision allows.
    """
    largest = 0.0
    for graph in graphs:
        session = start_session(onnx_models[graph.file])
        for operation in graph.operations:
            inputs = golden[golden_array(operation, graph.input_name)]
            expected = [golden[golden_array(operation, name)] for name in graph.output_names]
            actual = session.run(None, {graph.input_name: inputs})
            differences = [
                float(np.abs(ours - theirs).max())
                for ours, theirs in zip(actual, expected, strict=True)
            ]
            if precision == "float16":
                differences.append(difference_in_float16(graph, inputs, expected))
            largest = float(np.max([largest, *differences]))  # NaN if any difference is NaN
    if precision == "float16":
        return golden_tolerance(largest)
    if not largest <= GOLDEN_TOLERANCE:
        raise ExportError(
            f"golden outputs differ by {largest:.3g}; at most {GOLDEN_TOLERANCE:g} is allowed"
        )
    return GOLDEN_TOLERANCE


def _choose_target(model_folder: Path, version: int | None, force: bool) -> Path:
    taken = [int(path.name) for path in model_folder.glob("[1-9]*") if path.name.isdecimal()]
    if version is None:
        return model_folder / str(max(taken, default=0) + 1)
    if version < 1:
        raise ExportError(f"version is {version}; it must be 1 or more")
    if version in taken and not force:
        raise ExportError(
            f"{model_folder / str(version)} exists; omit --version to export version "
            f"{max(taken) + 1}, or replace it with --force"
        )
    return model_folder / str(version)


def _publish(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.replace(target)
        return
    # A folder cannot be replaced in one step: move the old one away, and back if that fails.
    backup = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.replace(backup / target.name)
    try:
        staging.replace(target)
    except OSError:
        (backup / target.name).replace(target)
        raise
    finally:
        shutil.rmtree(backup, ignore_errors=True)


def _recorded_revision(trained_with: str) -> str:
    return trained_with if trained_with != UNKNOWN else source_revision()


def _describe_file(path: Path) -> dict[str, str | int]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
