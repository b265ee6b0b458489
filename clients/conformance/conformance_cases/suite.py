"""Suite of cases, with the limits and tolerances that all groups share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance_cases.case_files import CaseFiles, Json, Tolerance
from conformance_cases.exported_models import ExportedModel, to_uint8

GENERATIVE = "latentserve.v1.GenerativeService/"
MODELS = "latentserve.v1.ModelService/"
HEALTH = "grpc.health.v1.Health/"

# Limits of the servers.
MAX_REQUEST_ROWS = 1024
MAX_STREAM_ROWS = 100_000
MAX_BATCH_ROWS = 64
DEFAULT_MODEL = "mnist-vae"
TOKEN = "conformance-token"
DOMAIN = "latentserve"

# Tolerance of the golden outputs of the exports: kernels differ in the order of additions.
GRAPH = Tolerance(1e-4)
# Four units in the last place of a float32: ln, cos and sin differ between libraries.
SAMPLE = Tolerance(1e-12, 4.8e-7)
# The same error, times the factors of a mixture, summed.
MIXTURE_SAMPLE = Tolerance(1e-5, 1e-6)
# z = mean + exp(log_variance / 2) * e: the error of the graph in mean and log_variance.
POSTERIOR = Tolerance(5e-4)
HALF = Tolerance(1.1e-3)  # a float16 near 1 has steps of 4.9e-4 to 9.8e-4
LEVEL = Tolerance(1)  # one of 256
SQUARED_ERROR = Tolerance(1e-2, 1e-4)
LOSSY = Tolerance(2e-2)  # JPEG decoders may differ by one level of 256 per pixel


@dataclass
class Suite:
    """Collects cases and files."""

    models: dict[str, ExportedModel]
    digits: NDArray[np.uint8]  # [n, 28, 28]
    files: CaseFiles = field(default_factory=CaseFiles)
    groups: dict[str, list[Json]] = field(default_factory=dict)

    def case(self, name: str, rpc: str, request: Json | None, expect: Json, **extra: Any) -> None:
        """Add a case named GROUP/NAME; `extra`: through, server, metadata, deadline_ms, ..."""
        group = name.partition("/")[0]
        case: Json = {"name": name, "server": "main", "through": "client", "rpc": rpc, **extra}
        if request is not None:
            case["request"] = request
        cases = self.groups.setdefault(group, [])
        if any(other["name"] == name for other in cases):
            raise ValueError(f"two cases have the name {name}")
        cases.append({**case, "expect": expect})

    def uint8(self, first: int, rows: int) -> NDArray[np.uint8]:
        """Return digits as [rows, 1, 28, 28]."""
        return self.digits[first : first + rows, np.newaxis]

    def floats(self, first: int, rows: int) -> NDArray[np.float32]:
        """Return digits in [0, 1] as float32 [rows, 1, 28, 28]."""
        return self.uint8(first, rows).astype(np.float32) / np.float32(255)

    def ref(self, model: str, version: int | None = None) -> Json:
        """Return a ModelRef; without a version, it selects the highest."""
        return {"name": model} if version is None else {"name": model, "version": version}

    def served_by(self, model: str) -> Json:
        """Return the expected model version of a reply."""
        exported = self.models[model]
        return {"name": model, "version": exported.version, "digest": exported.digest}

    def images(
        self,
        name: str,
        images: NDArray[np.float32],
        output_format: str = "FLOAT32",
        tolerance: Tolerance | None = None,
        repeat: int = 1,
    ) -> Json:
        """Return the expected images in the form of `output_format`."""
        if output_format == "PNG":
            pixels = to_uint8(images)
            return {"png": self.files.expected(name, pixels, tolerance or LEVEL, repeat=repeat)}
        array: NDArray[Any] = images
        usual = GRAPH
        if output_format == "FLOAT16":
            array, usual = images.astype(np.float16), HALF
        elif output_format == "UINT8":
            array, usual = to_uint8(images), LEVEL
        return {"tensor": self.files.expected(name, array, tolerance or usual, repeat=repeat)}


def ok(served_by: Json, **outputs: Any) -> Json:
    """Return the expectation of a successful GenerativeService call."""
    return {"ok": {"served_by": served_by, **outputs}}


def error(code: str, reason: str = "", **details: Any) -> Json:
    """Return the expectation of a failed call; without a reason, details are not checked."""
    outcome: Json = {"code": code}
    if reason:
        outcome |= {"reason": reason, "domain": DOMAIN, "metadata_keys": ["request_id"]}
        outcome |= {"violations": [], "retry_info": False}
    keys = details.pop("metadata_keys", [])
    outcome |= details
    if keys:
        outcome["metadata_keys"] = ["request_id", *keys]
    return {"error": outcome}
