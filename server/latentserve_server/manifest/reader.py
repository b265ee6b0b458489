"""Manifest of a model version: reads exports/<name>/<version>/manifest.json and checks its files.

The format is defined by manifest.schema.json. This module runs no model: `engine` makes the checks
that need ONNX Runtime (graph inputs and outputs, golden outputs).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentserve_server.errors import ManifestError
from latentserve_server.manifest.document import MANIFEST_NAME, parse_document
from latentserve_server.manifest.files import FileEntry, check_file, open_file, read_file
from latentserve_server.manifest.graph_check import check_graph

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
    files: dict[str, FileEntry]
    external_files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Graph file -> the other files that hold tensors of it."""

    def read_file(self, name: str) -> bytes:
        """Return the content of a file of the folder, after a check of its SHA-256.

        Raises ManifestError.
        """
        return read_file(self.folder, name, self.files[name])

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


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of `folder`, <root>/<name>/<version>.

    Raises ManifestError, with a text for the operator, if the manifest violates the schema,
    contradicts its folder, or lists a file that is missing or differs, or if a graph contains
    something that `graph_check` does not allow.
    """
    manifest = parse_manifest(read_manifest_bytes(folder), folder)
    graphs = {spec.file for spec in manifest.operations.values()}
    for name, entry in manifest.files.items():
        if name not in graphs:
            check_file(folder, name, entry)
    for file in sorted(graphs):
        content = manifest.read_file(file)
        manifest.external_files[file] = check_graph(file, content, manifest.files)
    return manifest


def parse_manifest(raw: bytes, folder: Path) -> Manifest:
    """Return the manifest with the content `raw`, without a check of the files that it lists.

    Raises ManifestError.
    """
    document = parse_document(raw)
    manifest = _parse(document, hashlib.sha256(raw).hexdigest(), folder)
    _check_names(manifest)
    return manifest


def read_manifest_bytes(folder: Path) -> bytes:
    """Return the content of the manifest of `folder`; raises ManifestError if it is unreadable."""
    try:
        file, size = open_file(folder, MANIFEST_NAME)
        with file:
            if size > _MAX_MANIFEST_BYTES:
                raise ManifestError(f"{MANIFEST_NAME} is larger than {_MAX_MANIFEST_BYTES} bytes")
            return file.read(_MAX_MANIFEST_BYTES)
    except OSError as error:
        raise ManifestError(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error


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
        files={
            name: FileEntry(entry["sha256"], entry["bytes"])
            for name, entry in document["files"].items()
        },
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


def _check_names(manifest: Manifest) -> None:
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
        if file not in manifest.files:
            raise ManifestError(f"{owner} names {file}, which is not listed in files")
    for operation, spec in manifest.operations.items():
        inputs = set(manifest.golden.inputs.get(operation, {}))
        outputs = set(manifest.golden.outputs.get(operation, {}))
        if inputs != set(spec.inputs) or outputs != set(spec.outputs):
            raise ManifestError(
                f"golden must have every input and output of {operation}: "
                f"{[*spec.inputs, *spec.outputs]}, but it has {sorted(inputs | outputs)}"
            )
