"""Checks of arguments that need no server."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

from latentserve.v1 import tensor_pb2
from latentserve_client._errors import invalid

_FORMATS: dict[str, tensor_pb2.ImageFormat] = {
    "float32": tensor_pb2.IMAGE_FORMAT_FLOAT32,
    "float16": tensor_pb2.IMAGE_FORMAT_FLOAT16,
    "uint8": tensor_pb2.IMAGE_FORMAT_UINT8,
    "png": tensor_pb2.IMAGE_FORMAT_PNG,
}


def to_ref(model: str | None) -> tensor_pb2.ModelRef:
    """Return the message for "NAME", "NAME:VERSION" or None, the default model of the server.

    Raises InvalidArgument for a version that is not a positive integer.
    """
    name, colon, version = (model or "").partition(":")
    if not colon:
        return tensor_pb2.ModelRef(name=name)
    if not (version.isdecimal() and 1 <= int(version) < 2**31):
        raise invalid(
            "model", f"{model!r}; expected NAME or NAME:VERSION with a version of 1 or higher"
        )
    return tensor_pb2.ModelRef(name=name, version=int(version))


def timeout(timeout_s: float) -> float:
    """Return a timeout in seconds. Raises InvalidArgument unless it is positive and finite."""
    # NaN also fails this comparison.
    if not 0 < timeout_s < math.inf:
        raise invalid("timeout_s", f"{timeout_s}; expected a positive number of seconds")
    return float(timeout_s)


def token_is_encrypted(metadata: Iterable[tuple[str, object]]) -> None:
    """Raise InvalidArgument if metadata for a plaintext connection contains credentials."""
    if any(key.lower() == "authorization" for key, _ in metadata):
        raise invalid(
            "metadata",
            "a token on a plaintext connection can be intercepted; set credentials, or "
            "allow_plaintext_token if something else protects the connection",
        )


def integer(name: str, value: int, low: int, high: int) -> int:
    """Return an integer from `low` to `high`. Raises InvalidArgument for other values."""
    try:
        number = operator.index(value)  # accepts NumPy integers, rejects floats
    except TypeError:
        raise invalid(name, f"{value!r}; expected an integer") from None
    if not low <= number <= high:
        raise invalid(name, f"{number}; expected {low} to {high}")
    return number


def seed(value: int | None) -> int | None:
    """Return a seed of 64 bits, or None. Raises InvalidArgument for other values."""
    return None if value is None else integer("seed", value, 0, 2**64 - 1)


def temperature(value: float | None) -> float | None:
    """Return a temperature, or None. Raises InvalidArgument outside 0 to 10."""
    if value is not None and not 0 <= value <= 10:  # NaN also fails this
        raise invalid("temperature", f"{value}; expected 0 to 10")
    return value


def image_format(output_format: str) -> tensor_pb2.ImageFormat:
    """Return the enum value of an output format. Raises InvalidArgument for an unknown name."""
    try:
        return _FORMATS[output_format]
    except KeyError:
        raise invalid(
            "output_format", f"{output_format!r}; expected one of {', '.join(_FORMATS)}"
        ) from None
