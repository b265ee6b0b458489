"""Conversion of an error to a gRPC status: code, message and google.rpc.Status details.

This module uses the protobuf messages of gRPC's error model, but no transport.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from latentserve_server.errors import CallError, EngineFailure

DOMAIN = "latentserve"

# Bytes on the wire. All metadata of a reply must stay below 8 KiB, gRPC's soft limit.
_MAX_MESSAGE_BYTES = 1000
_MAX_TEXT_BYTES = 500
_MAX_VIOLATIONS = 5


@dataclass(frozen=True)
class WireStatus:
    """Status of a failed call, as sent to the client; `trailers` carry the details.

    `request_id`, `text` (the error's text) and `cause` (the exception, if it was unexpected) are
    for the log. Of these, the client gets only the id.
    """

    code_name: str
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]
    request_id: str = ""
    text: str = ""
    cause: Exception | None = None


def explain(error: Exception) -> WireStatus:
    """Return the status of any error. Every transport converts errors with this function."""
    request_id = secrets.token_hex(8)
    if isinstance(error, CallError):
        return wire_status(error, request_id=request_id)
    status = wire_status(EngineFailure(str(error)), request_id=request_id)
    return replace(status, text=f"unexpected {type(error).__name__}", cause=error)


def wire_status(error: CallError, *, request_id: str) -> WireStatus:
    """Return the status of a CallError. The text of an EngineFailure is not sent to the client."""
    message, metadata = error.message, {**error.metadata, "request_id": request_id}
    if isinstance(error, EngineFailure):
        message = f"internal error; the server's log has the cause under request id {request_id}"
    message = _cut_message(message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={key: _cut(value) for key, value in metadata.items()},
        )
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=_cut(violation.description)
                    )
                    for violation in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    trailers: list[tuple[str, str | bytes]] = []
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000))))
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=message, details=map(_pack, details)
    )
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    return WireStatus(error.code, message, tuple(trailers), request_id, error.message)


def _cut(text: str) -> str:
    """Return a text cut to the byte limit of a detail."""
    return text.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")


def _cut_message(text: str) -> str:
    """Return a message cut to the byte limit that holds after gRPC's percent-encoding."""
    size = 0
    for index, letter in enumerate(text):
        plain = " " <= letter <= "~" and letter != "%"
        size += 1 if plain else 3 * len(letter.encode())
        if size > _MAX_MESSAGE_BYTES:
            return text[:index]
    return text


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
