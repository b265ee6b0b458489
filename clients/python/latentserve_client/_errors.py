"""Exceptions of the client.

    LatentserveError
    ├── InvalidArgument            the request is invalid, `violations` has the fields; a ValueError
    ├── NotFound                   unknown model, version or health service
    ├── FailedPrecondition         the model does not support this request
    │   └── OperationNotSupported  the model does not support the operation
    ├── ResourceExhausted          a limit of the server was reached
    │   ├── QueueFull              the queue of the model is full; retry after `retry_after_s`
    │   └── MessageTooLarge        the request or the reply exceeds a message size limit
    ├── DeadlineExceeded           `timeout_s` passed
    ├── Unavailable                the server is unreachable, starting, draining or loading
    ├── Cancelled                  the call was cancelled
    ├── Unimplemented              the server does not implement the method
    ├── Unauthenticated            credentials are missing or refused
    ├── InternalError              the server failed; `metadata["request_id"]` is in its log
    └── BadReply                   the reply violates the protocol

`InvalidArgument` is raised for an error of the server and by checks of the client before the call.
A missing image file raises `OSError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str  # dotted path in the request, for example "images.tensor.shape"
    description: str  # the value sent and the values expected


class LatentserveError(Exception):
    """A call failed; base class of all errors of this package."""

    default_code = "UNKNOWN"
    default_advice = ""

    def __init__(
        self,
        message: str,
        code: str = "",
        reason: str = "",
        advice: str | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message
        self.code = code or self.default_code  # name of the gRPC status code
        self.reason = reason  # reason of the ErrorInfo, for example "QUEUE_FULL"
        # What the user can do; None: the default advice of the class.
        self.advice = self.default_advice if advice is None else advice
        self.violations = violations
        self.retry_after_s = retry_after_s  # seconds; None if the server did not send it
        self.metadata: Mapping[str, str] = dict(metadata or {})  # metadata of the ErrorInfo
        # All arguments, so that the exception can be pickled.
        super().__init__(
            message, self.code, reason, self.advice, violations, retry_after_s, self.metadata
        )

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        lines += [
            f"  {violation.field}: {violation.description}"
            for violation in self.violations
            # The message of the server often repeats its only violation.
            if violation.description not in self.message
        ]
        if self.advice:
            lines.append(f"  {self.advice}")
        return "\n".join(lines)


class InvalidArgument(LatentserveError, ValueError):
    """The request is invalid; `violations` lists the fields."""

    default_code = "INVALID_ARGUMENT"


class NotFound(LatentserveError):
    """Unknown model, version or health service."""

    default_code = "NOT_FOUND"
    default_advice = "Client.models(), or `latentserve models`, lists the models of the server."


class FailedPrecondition(LatentserveError):
    """The model does not support this request."""

    default_code = "FAILED_PRECONDITION"


class OperationNotSupported(FailedPrecondition):
    """The model does not support the operation; `metadata["operations"]` lists its operations."""

    default_advice = (
        "Choose a model that supports the operation; Client.models() lists the operations."
    )


class ResourceExhausted(LatentserveError):
    """A limit of the server was reached."""

    default_code = "RESOURCE_EXHAUSTED"
    default_advice = "Try again later, or reduce the number of concurrent calls."


class QueueFull(ResourceExhausted):
    """The queue of the model is full; retry after `retry_after_s`."""

    default_advice = "Try again later, or reduce the number of concurrent calls."


class MessageTooLarge(ResourceExhausted):
    """The request or the reply is larger than a message size limit."""

    default_advice = (
        "Send fewer images per call, or set output_format to 'uint8' or 'png'; a retry does not "
        "help. Client(max_message_bytes=...) sets the limit of the client."
    )


class DeadlineExceeded(LatentserveError):
    """`timeout_s` passed before the reply arrived."""

    default_code = "DEADLINE_EXCEEDED"
    default_advice = "Increase timeout_s, or use a less loaded server."


class Unavailable(LatentserveError):
    """The server is unreachable, starting or draining, or the model is loading."""

    default_code = "UNAVAILABLE"
    default_advice = "Check that the server runs and that the address is correct, or try again."


class Cancelled(LatentserveError):
    """The call was cancelled, by this client or by the server."""

    default_code = "CANCELLED"


class Unimplemented(LatentserveError):
    """The server does not implement the method."""

    default_code = "UNIMPLEMENTED"
    default_advice = "Check that the address belongs to a latentserve server of this version."


class Unauthenticated(LatentserveError):
    """Credentials are missing or refused."""

    default_code = "UNAUTHENTICATED"
    default_advice = "Pass Client(credentials=...) or Client(metadata=[('authorization', ...)])."


class InternalError(LatentserveError):
    """The server failed; its log has the cause under `metadata["request_id"]`."""

    default_code = "INTERNAL"


class BadReply(LatentserveError):
    """The reply violates the protocol."""

    default_code = "INTERNAL"
    default_advice = "The server and this client have different versions; update the older one."


_BY_CODE: dict[str, type[LatentserveError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": FailedPrecondition,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Cancelled,
    "UNIMPLEMENTED": Unimplemented,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": Unauthenticated,
    "INTERNAL": InternalError,
    "UNKNOWN": InternalError,
    "DATA_LOSS": InternalError,
}


def invalid(field: str, description: str) -> InvalidArgument:
    """Return the error for an argument that fails a check of the client."""
    return InvalidArgument(f"{field}: {description}", violations=(Violation(field, description),))


def error_from_rpc(error: Any, default_message: str = "") -> LatentserveError:
    """Return the exception for a `grpc.RpcError` of the sync or the asyncio API.

    `default_message` replaces an empty message of the server.
    """
    code: str = error.code().name
    message: str = error.details() or default_message or "the server gave no reason"
    reason, metadata = "", {}
    violations: list[Violation] = []
    retry_after_s: float | None = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    kind = _kind(code, reason, message)
    return kind(
        message,
        code,
        reason,
        _advice(kind, message, reason, metadata, retry_after_s),
        tuple(violations),
        retry_after_s,
        metadata,
    )


def _details(error: Any) -> list[Any]:
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # A proxy replaced the status: the details do not belong to it.
        return []
    return [] if status is None else list(status.details)


def _kind(code: str, reason: str, message: str) -> type[LatentserveError]:
    if code == "RESOURCE_EXHAUSTED":
        if reason == "QUEUE_FULL":
            return QueueFull
        # This error comes from gRPC itself, which sends only a text.
        if "larger than max" in message:
            return MessageTooLarge
    if reason == "OPERATION_NOT_SUPPORTED":
        return OperationNotSupported
    return _BY_CODE.get(code, LatentserveError)


def _advice(
    kind: type[LatentserveError],
    message: str,
    reason: str,
    metadata: Mapping[str, str],
    retry_after_s: float | None,
) -> str | None:
    """Return the advice, "" if the message already contains it, None for the default."""
    if kind is InternalError and metadata.get("request_id", message) not in message:
        return f"The log of the server has the cause under request id {metadata['request_id']}."
    for key, label in (("models", "Models"), ("operations", "Supported operations")):
        if metadata.get(key):
            return "" if metadata[key] in message else f"{label}: {metadata[key]}."
    if retry_after_s is not None:
        return f"Try again in {retry_after_s:g} s."
    if kind is Unimplemented and reason:
        return ""  # a latentserve server, whose message has the cause
    return None
