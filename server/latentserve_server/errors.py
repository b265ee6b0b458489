"""Exception hierarchy of the server, with the gRPC status of each call error.

    LatentserveError
    ├── StartupError            the process ends; the text goes to the terminal
    │   ├── SettingsError
    │   ├── DeviceUnavailable
    │   └── NoModels
    ├── EngineStuck             the process ends because of the watchdog
    ├── ManifestError           one model version is refused; the others are served
    └── CallError               one call fails; the text goes to the client
        ├── InvalidRequest      INVALID_ARGUMENT
        ├── ModelNotFound       NOT_FOUND
        ├── UnknownService      NOT_FOUND
        ├── OperationNotSupported   FAILED_PRECONDITION
        ├── ModelFolderUnreadable   FAILED_PRECONDITION
        ├── QueueFull           RESOURCE_EXHAUSTED
        ├── RepliesUnread       RESOURCE_EXHAUSTED
        ├── DeadlineExceeded    DEADLINE_EXCEEDED
        ├── Unavailable         UNAVAILABLE
        ├── Unauthenticated     UNAUTHENTICATED
        ├── OutputNotFinite     INTERNAL
        └── EngineFailure       INTERNAL; the text goes to the log only
            └── OutOfMemory     the batch may fit in halves

This module does not depend on gRPC: codes are names, and `status` converts them to a
google.rpc.Status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class LatentserveError(Exception):
    """Base class of all errors of this package."""


class StartupError(LatentserveError):
    """The server cannot run with the given settings."""


class SettingsError(StartupError):
    """A flag or an environment variable has an invalid value."""


class DeviceUnavailable(StartupError):
    """The requested device cannot run the models."""


class NoModels(StartupError):
    """No model can be served."""


class EngineStuck(LatentserveError):
    """An engine did not finish its work, and --watchdog-exit asks for the process to end."""


class ManifestError(LatentserveError):
    """A model version violates the exports contract."""


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of a request.

    `field` is a path in the message, for example `images.tensor.shape`; `description` has the
    value that was sent and the expected one.
    """

    field: str
    description: str


class CallError(LatentserveError):
    """Base class of the errors that fail one call.

    Attributes:
        code: name of the gRPC status code.
        reason: ErrorInfo.reason, UPPER_SNAKE; empty for none.
        metadata: ErrorInfo.metadata.
        violations: BadRequest.field_violations.
        retry_after_s: seconds until a retry makes sense; None if a retry would not help.
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
    """The request is invalid, regardless of the server's state."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"

    @classmethod
    def field(cls, field: str, description: str) -> InvalidRequest:
        """Return the error for one invalid field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field, description)])


class ModelNotFound(CallError):
    """The model or the version does not exist."""

    code = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class UnknownService(CallError):
    """No service or model of this name has a health status."""

    code = "NOT_FOUND"
    reason = "SERVICE_NOT_FOUND"


class OperationNotSupported(CallError):
    """The model does not support the operation."""

    code = "FAILED_PRECONDITION"
    reason = "OPERATION_NOT_SUPPORTED"


class ModelFolderUnreadable(CallError):
    """A reload found no model folder, or an empty one; the loaded models are kept."""

    code = "FAILED_PRECONDITION"
    reason = "MODEL_FOLDER_UNREADABLE"


class QueueFull(CallError):
    """The model's queue has no room for the request."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class RepliesUnread(CallError):
    """Too many bytes of earlier replies are not read by their clients."""

    code = "RESOURCE_EXHAUSTED"
    reason = "REPLIES_UNREAD"


class DeadlineExceeded(CallError):
    """The deadline passed while the request was queued; the engine did not run it."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED_IN_QUEUE"


class Unavailable(CallError):
    """The server is starting or draining, or the model is loading."""

    code = "UNAVAILABLE"
    reason = "NOT_READY"


class Unauthenticated(CallError):
    """The call does not carry the token that its method requires."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_REQUIRED"


class OutputNotFinite(CallError):
    """The model gave NaN or infinite values for a valid input.

    Attributes:
        row: the first such row, counted from the first row of the request.
    """

    code = "INTERNAL"
    reason = "OUTPUT_NOT_FINITE"

    def __init__(self, row: int) -> None:
        super().__init__(f"the model gave NaN or infinite values for row {row} of the request")
        self.row = row


class EngineFailure(CallError):
    """ONNX Runtime failed on valid input."""

    code = "INTERNAL"
    reason = "ENGINE_FAILURE"


class OutOfMemory(EngineFailure):
    """The device had not enough memory for a batch; a smaller batch may fit."""
