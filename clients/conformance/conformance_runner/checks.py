"""Checks of the result or the error of a call against its case."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

from conformance_runner.calls import CallResult, Part
from conformance_runner.case_folder import DTYPES, CaseFolder, Json
from latentserve_client import LatentserveError

MAX_BATCH_ROWS = 64
_LONGEST = 300
_MAY_LACK_MESSAGE = ("CANCELLED", "DEADLINE_EXCEEDED")


class Mismatch(Exception):
    """The result differs from the expectation of the case."""


def check_result(case: Json, result: CallResult, folder: CaseFolder) -> None:
    """Raise Mismatch unless the result of a call is as expected."""
    if "ok" not in case["expect"]:
        raise Mismatch(f"the call succeeded, expected {case['expect']['error']}")
    expected = case["expect"]["ok"]
    if "status" in expected:
        _equal("status", result.value, expected["status"])
    elif "models" in expected:
        _equal("number of models", len(result.value), len(expected["models"]))
        for model, wanted in zip(result.value, expected["models"], strict=True):
            _check_description(wanted["name"], model, wanted)
        _equal("default_model", result.value.default, expected["default_model"])
    elif "model" in expected:
        _check_description(expected["model"]["name"], result.value, expected["model"])
    elif "outcomes" in expected:
        _equal("number of outcomes", len(result.value), len(expected["outcomes"]))
        for outcome, wanted in zip(result.value, expected["outcomes"], strict=True):
            _check_description("outcome", outcome, wanted)
    else:
        _check_parts(case, result.parts, folder)


def check_error(case: Json, error: LatentserveError) -> None:
    """Raise Mismatch unless the error of a call is as expected."""
    if "error" not in case["expect"]:
        raise Mismatch(f"{error}")
    expected = case["expect"]["error"]
    codes = expected.get("codes") or [expected["code"]]
    if error.code not in codes:
        raise Mismatch(f"code {error.code} ({error.message}), expected {' or '.join(codes)}")
    if not error.message and error.code not in _MAY_LACK_MESSAGE:
        raise Mismatch("the error has no message")
    if "reason" not in expected:
        return
    _equal("reason", error.reason, expected["reason"])
    _equal("domain", _domain(error), expected["domain"])
    _equal("violations", [v.field for v in error.violations], expected["violations"])
    if not all(violation.description for violation in error.violations):
        raise Mismatch("a violation has no description")
    for key in expected.get("metadata_keys", ()):
        if not error.metadata.get(key):
            raise Mismatch(f"the error's metadata has no {key}: {dict(error.metadata)}")
    for key, value in expected.get("metadata", {}).items():
        _equal(f"metadata[{key}]", error.metadata.get(key), value)
    for text in expected.get("message_lacks", ()):
        if text in error.message:
            raise Mismatch(f"the message contains {text!r}: {error.message}")
    _check_retry(case, error, expected=expected["retry_info"])


def _check_retry(case: Json, error: LatentserveError, *, expected: bool) -> None:
    delay_s = error.retry_after_s
    if not expected:
        _equal("the delay of RetryInfo", delay_s, None)
    elif not delay_s or delay_s <= 0:
        raise Mismatch(f"the delay of RetryInfo is {delay_s}, expected a value above 0")
    if case["through"] == "stub":
        cause: Any = error.__cause__
        pushback = dict(cause.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
        wanted = str(int(delay_s * 1000 + 1e-6)) if delay_s else None
        _equal("grpc-retry-pushback-ms", pushback, wanted)


def _domain(error: LatentserveError) -> str:
    """Return ErrorInfo.domain, which the client's errors do not contain."""
    for detail in rpc_status.from_call(error.__cause__).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            return str(error_details_pb2.ErrorInfo.FromString(detail.value).domain)
    return ""


def _check_parts(case: Json, parts: Sequence[Part], folder: CaseFolder) -> None:
    expected = case["expect"]["ok"]
    if not parts:
        raise Mismatch("no reply")
    for part in parts:
        _check_signature(part, expected)
        if expected.get("seed") == "any":
            if part.seed is None or part.seed != parts[0].seed:
                raise Mismatch(f"seed is {part.seed}, expected one seed in all replies")
        elif "seed" in expected:
            wanted = expected["seed"]
            _equal("seed", part.seed, None if wanted is None else int(wanted))
    if case["rpc"].endswith("/SampleStream"):
        _check_chunks(case, parts)
    for name in ("latents", "log_variance", "squared_error"):
        if name in expected:
            _check_optional(name, [getattr(part, name) for part in parts], expected[name], folder)
    if "images" in expected:
        _check_images([part.images for part in parts], expected["images"], folder)


def _check_signature(part: Part, expected: Json) -> None:
    for name, value in expected["served_by"].items():
        _equal(f"served_by.{name}", getattr(part.served_by, name), value)
    if not part.served_by.provider:
        raise Mismatch("served_by.provider is empty")
    timings = part.timings
    if (
        timings.queue_ns < 0
        or timings.compute_ns <= 0
        or not 1 <= timings.batch_rows <= MAX_BATCH_ROWS
    ):
        raise Mismatch(f"timings are {timings}")


def _check_chunks(case: Json, parts: Sequence[Part]) -> None:
    request = case.get("request", {})
    next_row = int(request.get("offset", "0"))
    chunks = []
    for part in parts:
        rows = len(part.images) if part.images is not None else 0
        chunks.append({"offset": str(part.offset), "rows": rows})
        _equal("offset of a chunk", part.offset, next_row)
        if part.latents is not None:
            _equal("latents of a chunk", len(part.latents), rows)
        next_row += rows
    if "chunks" in case["expect"]["ok"]:
        _equal("chunks", chunks, case["expect"]["ok"]["chunks"])
    if case.get("stream", {}).get("resume", True):
        _equal("total rows of chunks", sum(c["rows"] for c in chunks), int(request["count"]))


def _check_optional(
    name: str, arrays: Sequence[NDArray[Any] | None], expected: Json | None, folder: CaseFolder
) -> None:
    present = [array for array in arrays if array is not None]
    if expected is None:
        if present:
            raise Mismatch(f"{name} is present, expected none")
    elif len(present) < len(arrays):
        raise Mismatch(f"{name} is missing")
    else:
        _check_tensor(name, np.concatenate(present), expected, folder)


def _check_images(
    images: Sequence[NDArray[Any] | tuple[bytes, ...] | None], expected: Json, folder: CaseFolder
) -> None:
    wants_files = "png" in expected
    rows: list[NDArray[Any]] = []
    for part in images:
        if wants_files and isinstance(part, tuple):
            rows += [_pixels(file)[np.newaxis] for file in part]
        elif not wants_files and isinstance(part, np.ndarray):
            rows.append(part)
        else:
            raise Mismatch(f"images are a {type(part).__name__}, expected {next(iter(expected))}")
    _check_tensor("images", np.concatenate(rows), next(iter(expected.values())), folder)


def _pixels(file: bytes) -> NDArray[np.uint8]:
    """Return a PNG file as [channels, height, width]."""
    with PIL.Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        pixels = np.asarray(image)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_tensor(name: str, got: NDArray[Any], expected: Json, folder: CaseFolder) -> None:
    _equal(f"dtype of {name}", got.dtype, DTYPES[expected["dtype"]])
    _equal(f"shape of {name}", list(got.shape), expected["shape"])
    if "data" not in expected:
        return
    values = got.astype(np.float64)
    wanted = folder.array(expected).astype(np.float64)
    allowed = expected["atol"] + expected["rtol"] * np.abs(wanted)
    wrong = ~(np.abs(values - wanted) <= allowed)  # NaN is never within tolerance
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise Mismatch(
            f"{name}: {int(wrong.sum())} of {wrong.size} values are wrong, the first at "
            f"{list(index)}: {values[index]:.9g}, expected {wanted[index]:.9g}"
        )


def _check_description(name: str, got: Any, expected: Json) -> None:
    """Compare the expected fields of a model description."""
    for key, wanted in expected.items():
        value = getattr(got, key)
        if key in ("state", "action"):
            wanted = wanted.lower()
        elif key == "operations":
            wanted = tuple(operation.lower() for operation in wanted)
        elif key == "metrics":
            value = sorted(map(dataclasses.asdict, value), key=lambda metric: metric["name"])
        elif key in ("image", "latent", "likelihood", "limits") and value is not None:
            value = dataclasses.asdict(value)
        _equal(f"{name}.{key}", value, wanted)


def _equal(name: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise Mismatch(f"{name} is {_brief(got)}, expected {_brief(wanted)}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
