"""Everything that can go wrong, and what the caller is told.

    LatentserveError
    ├── StartupError            the process ends; the text goes to the terminal
    │   ├── SettingsError
    │   ├── DeviceUnavailable
    │   └── NoModels
    ├── EngineStuck             the process ends, for the watchdog
    ├── ManifestError           one model version is refused; the others are served
    └── CallError               one call fails; the text goes to the caller
        ├── InvalidRequest      INVALID_ARGUMENT
        ├── ModelNotFound       NOT_FOUND
        ├── UnknownService      NOT_FOUND
        ├── OperationNotSupported   FAILED_PRECONDITION
        ├── ModelFolderUnreadable   FAILED_PRECONDITION
        ├── QueueFull           RESOURCE_EXHAUSTED
        ├── DeadlineExceeded    DEADLINE_EXCEEDED
        ├── Unavailable         UNAVAILABLE
        ├── Unauthenticated     UNAUTHENTICATED
        └── EngineFailure       INTERNAL; its text goes to the log alone
            └── OutOfMemory     the batch may fit in halves

This module knows no gRPC: codes are names, and `status` turns them into a
google.rpc.Status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class LatentserveError(Exception):
    """Base of every error of this package."""


class StartupError(LatentserveError):
    """The server cannot run as asked."""


class SettingsError(StartupError):
    """A flag or an environment variable has a value that cannot be used."""


class DeviceUnavailable(StartupError):
    """The device that was asked for cannot run the models."""


class NoModels(StartupError):
    """Not one model could be served."""


class EngineStuck(LatentserveError):
    """An engine did not finish its work, and the operator wants the process to end then."""


class ManifestError(LatentserveError):
    """A model version does not keep the exports contract."""


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that is wrong.

    `field` is a path in the message, for example `images.tensor.shape`; `description`
    says what was sent and what is expected.
    """

    field: str
    description: str


class CallError(LatentserveError):
    """One call fails.

    Attributes:
        code: name of the gRPC status code.
        reason: ErrorInfo.reason, UPPER_SNAKE; empty where there is none.
        metadata: ErrorInfo.metadata.
        violations: BadRequest.field_violations.
        retry_after_s: when to try again, in seconds; None where a retry would not help.
    """

    code = "UNKNOWN"
    reason = ""

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidRequest(CallError):
    """The request cannot be right, whatever the state of the server."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"

    @classmethod
    def field(cls, field: str, description: str) -> InvalidRequest:
        """Return the error for one wrong field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field, description)])


class ModelNotFound(CallError):
    """There is no such model or version."""

    code = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class UnknownService(CallError):
    """Health knows no service or model of that name."""

    code = "NOT_FOUND"
    reason = "SERVICE_NOT_FOUND"


class OperationNotSupported(CallError):
    """The model has no such operation."""

    code = "FAILED_PRECONDITION"
    reason = "OPERATION_NOT_SUPPORTED"


class ModelFolderUnreadable(CallError):
    """A reload found no model folder, or an empty one; what was served stays."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_FOLDER_UNREADABLE"


class QueueFull(CallError):
    """Too many rows wait for the model."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class DeadlineExceeded(CallError):
    """The deadline passed while the request waited; the engine never ran it."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED_IN_QUEUE"


class Unavailable(CallError):
    """The server is starting or draining, or the model is loading."""

    code = "UNAVAILABLE"
    reason = "NOT_READY"


class Unauthenticated(CallError):
    """The call does not carry the token that its method needs."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_REQUIRED"


class EngineFailure(CallError):
    """ONNX Runtime failed on valid input."""

    code = "INTERNAL"
    reason = "ENGINE_FAILURE"


class OutOfMemory(EngineFailure):
    """The device had no memory for a batch; a smaller one may fit."""
