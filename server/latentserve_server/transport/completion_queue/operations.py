"""Batches of gRPC core's operations that send the parts of a reply."""

from __future__ import annotations

from typing import Any

import grpc
from grpc._cython import cygrpc

OK = grpc.StatusCode.OK.value[0]


def initial_metadata() -> tuple[Any, ...]:
    """Return the operation that sends empty initial metadata."""
    return (cygrpc.SendInitialMetadataOperation((), 0),)


def message(body: bytes) -> tuple[Any, ...]:
    """Return the operation that sends one message."""
    return (cygrpc.SendMessageOperation(body, 0),)


def status(
    code: int, message: bytes = b"", trailers: tuple[tuple[str, str | bytes], ...] = ()
) -> tuple[Any, ...]:
    """Return the operation that sends the status, which ends the call."""
    return (cygrpc.SendStatusFromServerOperation(trailers, code, message, 0),)
