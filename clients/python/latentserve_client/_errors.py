"""What can go wrong in a call, as exceptions.

    LatentserveError
    ├── InvalidArgument            the request is wrong; `violations` says where (also a ValueError)
    ├── NotFound                   no such model or version
    ├── FailedPrecondition         the model cannot do this with this request
    │   └── OperationNotSupported  the model lacks the whole operation
    ├── ResourceExhausted          a limit of the server was reached
    │   ├── QueueFull              too many rows wait for the model; `retry_after_s` says how long
    │   └── MessageTooLarge        the request or the reply exceeds a message size limit
    ├── DeadlineExceeded           `timeout_s` passed
    ├── Unavailable                the server is not there, starting, draining or loading
    ├── Cancelled                  the call was cancelled
    ├── Unimplemented              the server does not offer this method
    ├── Unauthenticated            the server wants credentials, or others
    ├── InternalError              the server failed; `metadata["request_id"]` finds it in its log
    └── BadReply                   the reply breaks the wire contract

`InvalidArgument` is raised both by the server's answer and by the client before it sends anything:
the caller's mistake is the same. A missing image file raises the usual `OSError`.
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
    """One field of a request that is wrong."""

    field: str  # dotted path in the request, for example "images.tensor.shape"
    description: str  # what was sent and what is expected


class LatentserveError(Exception):
    """A call failed; every error of this package is one of these."""

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
        self.reason = reason  # of the server's ErrorInfo, for example "QUEUE_FULL"
        # What to do about it; None takes what is always true of this kind.
        self.advice = self.default_advice if advice is None else advice
        self.violations = violations
        self.retry_after_s = retry_after_s  # seconds; None where the server did not say
        self.metadata: Mapping[str, str] = dict(metadata or {})  # of the server's ErrorInfo
        # All of it, so that the exception survives pickling between processes.
        super().__init__(
            message, self.code, reason, self.advice, violations, retry_after_s, self.metadata
        )

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        lines += [
            f"  {violation.field}: {violation.description}"
            for violation in self.violations
            # A server often repeats its only violation as the message.
            if violation.description not in self.message
        ]
        if self.advice:
            lines.append(f"  {self.advice}")
        return "\n".join(lines)


class InvalidArgument(LatentserveError, ValueError):
    """The request is wrong; `violations` says which fields."""

    default_code = "INVALID_ARGUMENT"


class NotFound(LatentserveError):
    """There is no such model, version or health service."""

    default_code = "NOT_FOUND"
    default_advice = "Client.models(), or `latentserve models`, lists what there is."


class FailedPrecondition(LatentserveError):
    """The model cannot do this with this request."""

    default_code = "FAILED_PRECONDITION"


class OperationNotSupported(FailedPrecondition):
    """The model lacks the operation; `metadata["operations"]` lists what it has."""

    default_advice = "Choose a model that has the operation; Client.models() lists them."


class ResourceExhausted(LatentserveError):
    """A limit of the server was reached."""

    default_code = "RESOURCE_EXHAUSTED"
    default_advice = "Try again later, or with fewer calls at once."


class QueueFull(ResourceExhausted):
    """Too many rows wait for the model; `retry_after_s` says how long to wait."""

    default_advice = "Try again later, or with fewer calls at once."


class MessageTooLarge(ResourceExhausted):
    """The request or the reply is larger than a message size limit."""

    default_advice = (
        "Send fewer images in one call, or ask for output_format='uint8' or 'png'; trying again "
        "does not help. The client's own limit is Client(max_message_bytes=...)."
    )


class DeadlineExceeded(LatentserveError):
    """`timeout_s` passed before the answer came."""

    default_code = "DEADLINE_EXCEEDED"
    default_advice = "Give the call a longer timeout_s, or ask a less busy server."


class Unavailable(LatentserveError):
    """The server is not there, starting or draining, or the model is loading."""

    default_code = "UNAVAILABLE"
    default_advice = "Check that the server runs and that the address is right, or try again."


class Cancelled(LatentserveError):
    """The call was cancelled, by this client or by the server."""

    default_code = "CANCELLED"


class Unimplemented(LatentserveError):
    """The server does not offer this method."""

    default_code = "UNIMPLEMENTED"
    default_advice = "Check that the address is that of a latentserve server of this version."


class Unauthenticated(LatentserveError):
    """The server wants credentials, or others than these."""

    default_code = "UNAUTHENTICATED"
    default_advice = "Pass Client(credentials=...) or Client(metadata=[('authorization', ...)])."


class InternalError(LatentserveError):
    """The server failed; `metadata["request_id"]` finds the cause in its log."""

    default_code = "INTERNAL"


class BadReply(LatentserveError):
    """The reply breaks the wire contract."""

    default_code = "INTERNAL"
    default_advice = "The server and this client are of different versions; update the older one."


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
    """Return the error for an argument that the client refuses before it sends anything."""
    return InvalidArgument(f"{field}: {description}", violations=(Violation(field, description),))


def error_from_rpc(error: Any, unsaid: str = "") -> LatentserveError:
    """Return our error for a `grpc.RpcError` of the sync or the asyncio API.

    `unsaid` is the message for a method whose server side sends none.
    """
    code: str = error.code().name
    message: str = error.details() or unsaid or "the server gave no reason"
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
        # A proxy on the way rewrote the status: the details no longer belong to it.
        return []
    return [] if status is None else list(status.details)


def _kind(code: str, reason: str, message: str) -> type[LatentserveError]:
    if code == "RESOURCE_EXHAUSTED":
        if reason == "QUEUE_FULL":
            return QueueFull
        # gRPC itself answers here, with a text and nothing else.
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
    """Return what to do, "" where the server's message says it, None for what is always true."""
    if kind is InternalError and metadata.get("request_id", message) not in message:
        return f"The server's log says why, under request id {metadata['request_id']}."
    for key, what in (("models", "There are"), ("operations", "The model has")):
        if metadata.get(key):
            return "" if metadata[key] in message else f"{what}: {metadata[key]}."
    if retry_after_s is not None:
        return f"Try again in {retry_after_s:g} s."
    if kind is Unimplemented and reason:
        return ""  # it is one of our servers, and it has said why
    return None
