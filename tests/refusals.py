"""Parser of an error status's details, which checks that they contain no secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

# An absolute path, a stack trace, or a source file.
SECRETS = re.compile(r"(?<![\w./])/[\w.~-]+/[\w.~-]+|Traceback|\.py\b")
_METHOD = re.compile(r"/(latentserve|grpc)\.[\w.]+/\w+")


@dataclass
class Refusal:
    """Parsed error status of a call."""

    code: str
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    retry_after_s: float | None = None
    pushback_ms: int | None = None
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, error: Any) -> Refusal:
        """Parse the error of a call; fail if its details contradict it or contain a secret."""
        refusal = cls(error.code().name, error.details())
        trailers = dict(error.trailing_metadata() or ())
        if packed := trailers.get("grpc-status-details-bin"):
            status = status_pb2.Status.FromString(packed)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            for detail in status.details:
                refusal._read(detail)
        if pushback := trailers.get("grpc-retry-pushback-ms"):
            refusal.pushback_ms = int(pushback)
        refusal.texts += [refusal.message, *refusal.metadata.values(), *refusal.fields]
        for text in refusal.texts:
            assert not secrets_of(text), text
        return refusal

    def _read(self, detail: Any) -> None:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if _unpacked(detail, info):
            assert info.domain == "latentserve"
            self.reason, self.metadata = info.reason, dict(info.metadata)
        elif _unpacked(detail, bad):
            self.fields = [violation.field for violation in bad.field_violations]
            self.texts += [violation.description for violation in bad.field_violations]
        elif _unpacked(detail, retry):
            self.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        else:
            raise AssertionError(f"{detail.type_url} is not documented")


def secrets_of(text: str) -> list[str]:
    """Return the parts of a text that must not be sent to a client; RPC names are no paths."""
    return [found.group() for found in SECRETS.finditer(_METHOD.sub("", text))]


def refused(call: Any, *args: Any, **kwargs: Any) -> Refusal:
    """Make a call that must fail, and return its error."""
    try:
        call(*args, **kwargs)
    except grpc.RpcError as error:
        return Refusal.of(error)
    raise AssertionError("the call did not fail")


def _unpacked(detail: Any, message: Message) -> bool:
    found: bool = detail.Unpack(message)
    return found
