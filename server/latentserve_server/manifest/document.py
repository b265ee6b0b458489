"""JSON document of a manifest: parsed, checked against the schema, normalised.

JSON allows values that the server cannot store or send: integers written as 28.0, numbers beyond
float64 and int64, and text with half of a surrogate pair. They are normalised or refused here, so
that no later step fails on them.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from latentserve_server.errors import ManifestError

MANIFEST_NAME = "manifest.json"
_MAX_INT64 = 2**63 - 1
_MAX_MESSAGE = 300


@functools.cache
def schema_validator() -> Draft202012Validator:
    """Return the validator of manifest.schema.json."""
    text = (resources.files("latentserve_server") / "manifest.schema.json").read_text("utf-8")
    validator_class = validators.extend(Draft202012Validator, {"pattern": _check_pattern})
    validator: Draft202012Validator = validator_class(json.loads(text))
    return validator


def parse_document(raw: bytes) -> dict[str, Any]:
    """Return the document of a manifest file.

    Integers are of type int, also where the file has 28.0. Raises ManifestError for content that is
    not JSON, violates the schema, or has a value that the server cannot represent.
    """
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST_NAME} is not JSON: {error}") from error
    for path, value in _values(document):
        _check_value(path, value)
    if problems := sorted(schema_validator().iter_errors(document), key=lambda e: e.json_path):
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ManifestError(
            f"{MANIFEST_NAME}: {first.json_path}: {first.message[:_MAX_MESSAGE]}{more}"
        )
    _normalise(document)
    return document  # type: ignore[no-any-return]  # an object, by the schema


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_pattern(
    validator: Any, pattern: str, instance: object, schema: Any
) -> Iterator[ValidationError]:
    """Match a pattern against the whole text: `$` alone also matches before a final newline."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _values(document: object) -> Iterator[tuple[str, Any]]:
    """Iterate over the path and value of everything in a document, without recursion."""
    left: list[tuple[str, Any]] = [("$", document)]
    while left:
        path, value = left.pop()
        yield path, value
        if isinstance(value, dict):
            for key, child in value.items():
                # The path may contain half of a surrogate pair, so it is escaped.
                yield f"a name in {path}", key
                left.append((f"{path}.{ascii(key)[1:-1][:100]}", child))
        elif isinstance(value, list):
            left += [(f"{path}[{index}]", child) for index, child in enumerate(value)]


def _check_value(path: str, value: Any) -> None:
    problem = ""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            problem = "is not valid Unicode: it has half of a surrogate pair"
    elif isinstance(value, int | float):
        try:
            if not math.isfinite(float(value)):
                problem = "is beyond the range of float64"
        except OverflowError:
            problem = "is beyond the range of float64"
    if problem:
        raise ManifestError(f"{MANIFEST_NAME}: {path[:_MAX_MESSAGE]} {problem}")


def _normalise(document: dict[str, Any]) -> None:
    """Convert the integers that the server uses to int, and the other numbers to float.

    In JSON Schema, 28.0 is an integer, too.
    """
    _to_int(document, "$", "version")
    for name in document["image"]:
        _to_int(document["image"], "$.image", name)
    _to_int(document["latent"], "$.latent", "dim")
    if mixture := document["latent"].get("mixture"):
        _to_int(mixture, "$.latent.mixture", "components")
    for name, entry in document["files"].items():
        _to_int(entry, f"$.files.{name}", "bytes")
    golden = document["golden"]
    golden["tolerance"] = float(golden["tolerance"])
    if "sample_seed" in golden:
        golden["sample_seed"] = int(golden["sample_seed"])  # at most 2^64 - 1, by the schema
    if likelihood := document["likelihood"]:
        likelihood["sigma"] = float(likelihood.get("sigma", 0.0))
    for name, metric in document["metrics"].items():
        _to_int(metric, f"$.metrics.{name}", "samples")
        metric["value"] = float(metric["value"])
        if baseline := metric["baseline"]:
            baseline["value"] = float(baseline["value"])


def _to_int(owner: dict[str, Any], path: str, name: str) -> None:
    value = int(owner[name])
    if value > _MAX_INT64:
        raise ManifestError(f"{MANIFEST_NAME}: {path}.{name} is {value}, at most {_MAX_INT64}")
    owner[name] = value
