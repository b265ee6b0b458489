"""Manifest of a model version: reads exports/<name>/<version>/manifest.json and checks its files.

The format is defined by manifest.schema.json. This module runs no model: `engine` makes the checks
that need ONNX Runtime (graph inputs and outputs, golden outputs).
"""

from __future__ import annotations

import functools
import hashlib
import json
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from latentserve_server.errors import ManifestError
from latentserve_server.manifest.graph_check import check_graph_file

MANIFEST_NAME = "manifest.json"
MAX_MIXTURE_VALUES = 2**22
"""Maximum number of values in all covariance factors of a mixture: 16 MB."""
_MAX_MANIFEST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ImageSpec:
    """Images of a model: float32 NCHW in [0, 1]."""

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, self.height, self.width)

    @property
    def values(self) -> int:
        """Values per image."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class OperationSpec:
    """The graph file of an operation and the names of its tensors."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class MixtureSpec:
    """The file of the Gaussian mixture that latents are sampled from, and its size."""

    file: str
    components: int


@dataclass(frozen=True)
class Golden:
    """Inputs with the outputs of torch: operation -> tensor name -> array name.

    With a `sample_seed`, the inputs of `sample` are the latents of this seed from the prior.
    """

    file: str
    inputs: dict[str, dict[str, str]]
    outputs: dict[str, dict[str, str]]
    tolerance: float
    sample_seed: int | None


@dataclass(frozen=True)
class Metric:
    """A metric measured at export, with its baseline."""

    name: str
    value: float
    unit: str
    baseline: float | None
    baseline_name: str
    samples: int
    estimator: str


@dataclass(frozen=True)
class Manifest:
    """The validated manifest of one model version."""

    name: str
    version: int
    kind: str
    description: str
    image: ImageSpec
    latent_dim: int
    prior: str
    mixture: MixtureSpec | None
    operations: dict[str, OperationSpec]
    precision: str
    likelihood_family: str
    likelihood_sigma: float
    golden: Golden
    metrics: tuple[Metric, ...]
    digest: str
    folder: Path

    @property
    def has_log_variance(self) -> bool:
        """Whether the encoder returns a log-variance in addition to the mean."""
        encode = self.operations.get("encode")
        return encode is not None and len(encode.outputs) == 2

    def input_shape(self, operation: str) -> tuple[int, ...]:
        """Return the shape of one input row of an operation."""
        return (self.latent_dim,) if operation in ("decode", "sample") else self.image.shape

    def output_shape(self, operation: str) -> tuple[int, ...]:
        """Return the shape of one output row of an operation."""
        return (self.latent_dim,) if operation == "encode" else self.image.shape


@functools.cache
def schema_validator() -> Draft202012Validator:
    """Return the validator of manifest.schema.json."""
    text = (resources.files("latentserve_server") / "manifest.schema.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of `folder`, <root>/<name>/<version>.

    Raises ManifestError, with a text for the operator, if the manifest violates the schema,
    contradicts its folder, or lists a file that is missing or differs, or if a graph contains
    something that `graph_check` does not allow.
    """
    raw = read_manifest_bytes(folder)
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST_NAME} is not JSON: {error}") from error
    if problems := sorted(schema_validator().iter_errors(document), key=lambda e: e.json_path):
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ManifestError(f"{MANIFEST_NAME}: {first.json_path}: {first.message[:300]}{more}")
    manifest = _parse(document, hashlib.sha256(raw).hexdigest(), folder)
    _check_names(manifest, document)
    for name, entry in document["files"].items():
        _check_file(folder, name, entry["sha256"], entry["bytes"])
    for file in sorted({spec.file for spec in manifest.operations.values()}):
        check_graph_file(folder, file, document["files"])
    return manifest


def read_manifest_bytes(folder: Path) -> bytes:
    """Return the content of the manifest of `folder`; raises ManifestError if it is unreadable."""
    try:
        if _size(folder, MANIFEST_NAME) > _MAX_MANIFEST_BYTES:
            raise ManifestError(f"{MANIFEST_NAME} is larger than {_MAX_MANIFEST_BYTES} bytes")
        return (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise ManifestError(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse(document: dict[str, Any], digest: str, folder: Path) -> Manifest:
    likelihood = document["likelihood"] or {}
    golden = document["golden"]
    mixture = document["latent"].get("mixture")
    return Manifest(
        name=document["name"],
        version=document["version"],
        kind=document["kind"],
        description=document["description"],
        image=ImageSpec(**document["image"]),
        latent_dim=document["latent"]["dim"],
        prior=document["latent"]["prior"],
        mixture=MixtureSpec(**mixture) if mixture else None,
        operations={
            name: OperationSpec(spec["file"], tuple(spec["inputs"]), tuple(spec["outputs"]))
            for name, spec in document["operations"].items()
        },
        precision=document.get("precision", "float32"),
        likelihood_family=likelihood.get("family", ""),
        likelihood_sigma=likelihood.get("sigma", 0.0),
        golden=Golden(
            golden["file"],
            golden["inputs"],
            golden["outputs"],
            golden["tolerance"],
            golden.get("sample_seed"),
        ),
        metrics=tuple(_parse_metric(name, entry) for name, entry in document["metrics"].items()),
        digest=digest,
        folder=folder,
    )


def _parse_metric(name: str, entry: dict[str, Any]) -> Metric:
    baseline = entry["baseline"] or {}
    return Metric(
        name=name,
        value=entry["value"],
        unit=entry["unit"],
        baseline=baseline.get("value"),
        baseline_name=baseline.get("name", ""),
        samples=entry["samples"],
        estimator=entry["estimator"],
    )


def _check_names(manifest: Manifest, document: dict[str, Any]) -> None:
    """Check the names that must agree with each other, which a schema cannot express."""
    name, version = manifest.folder.parent.name, manifest.folder.name
    if (manifest.name, str(manifest.version)) != (name, version):
        raise ManifestError(
            f"the manifest says {manifest.name} version {manifest.version}, "
            f"but its folder is {name}/{version}"
        )
    if "sample" in manifest.operations and manifest.prior == "none":
        raise ManifestError("the operation sample needs a prior, but latent.prior is none")
    if manifest.golden.sample_seed is not None and "sample" not in manifest.operations:
        raise ManifestError("golden.sample_seed is given, but there is no operation sample")
    listed = document["files"]
    wanted = {f"operations.{op}": spec.file for op, spec in manifest.operations.items()}
    wanted["golden"] = manifest.golden.file
    if manifest.mixture:
        wanted["latent.mixture"] = manifest.mixture.file
        values = manifest.mixture.components * manifest.latent_dim**2
        if values > MAX_MIXTURE_VALUES:
            raise ManifestError(
                f"latent.mixture has {values} values in its factors (components x dim x dim), "
                f"the maximum is {MAX_MIXTURE_VALUES}"
            )
    for owner, file in wanted.items():
        if file not in listed:
            raise ManifestError(f"{owner} names {file}, which is not listed in files")
    for operation, spec in manifest.operations.items():
        inputs = set(manifest.golden.inputs.get(operation, {}))
        outputs = set(manifest.golden.outputs.get(operation, {}))
        if inputs != set(spec.inputs) or outputs != set(spec.outputs):
            raise ManifestError(
                f"golden must have every input and output of {operation}: "
                f"{[*spec.inputs, *spec.outputs]}, but it has {sorted(inputs | outputs)}"
            )


def _check_file(folder: Path, name: str, sha256: str, size: int) -> None:
    try:
        found = _size(folder, name)
        if found != size:
            raise ManifestError(f"{name} has {found} bytes, the manifest says {size}")
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{name} cannot be read: {error.strerror}") from error
    if digest != sha256:
        raise ManifestError(f"{name} has SHA-256 {digest}, the manifest says {sha256}")


def _size(folder: Path, name: str) -> int:
    """Return the size of a file in bytes, without opening it.

    Raises OSError, and ManifestError if it is not a regular file inside the folder.
    """
    path = folder / name
    try:
        # A symbolic link may point anywhere; its target must be inside the folder.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ManifestError(f"{name} leads out of the model's folder")
    except RuntimeError as error:  # raised by resolve for a link to itself before Python 3.13
        raise ManifestError(f"{name} cannot be read: it is a link to itself") from error
    found = path.stat()
    # Reading a pipe would block forever.
    if not stat.S_ISREG(found.st_mode):
        raise ManifestError(f"{name} cannot be read: it is not a regular file")
    return found.st_size
