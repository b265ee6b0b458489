"""Access log: one line per failed call, and per successful call with `--log-requests`.

Of each status code, `rate_limit` admits the first lines of a second, except for successful calls.

A line has the method, status code, model, duration in milliseconds, request id and trace id. It
has no data of the client and none of the request beyond the model.
"""

from __future__ import annotations

import logging
import secrets

from google.protobuf.message import DecodeError

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2
from latentserve_server.observability.logs.format import SUCCESS_LOGGER
from latentserve_server.observability.logs.rate_limit import LIMIT
from latentserve_server.status import WireStatus

log = logging.getLogger("latentserve_server.request")
_success_log = logging.getLogger(SUCCESS_LOGGER)

HEAD_BYTES = 256
"""Length of the prefix of a request that is kept to read its model, which is the first field."""

_SERVER_FAILED = frozenset({"INTERNAL", "UNKNOWN"})
_OVERLOAD = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})
_MODEL_TAG = 0x0A  # field 1, length-delimited


def _methods_with_a_model() -> frozenset[str]:
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for file in (generative_service_pb2, model_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if (field := method.input_type.fields_by_number.get(1)) is not None
        and field.message_type is not None
        and field.message_type.full_name == tensor_pb2.ModelRef.DESCRIPTOR.full_name
    )


_WITH_MODEL = _methods_with_a_model()


def is_logged(code_name: str) -> bool:
    """Whether a call with this status code may be logged; OK only with `--log-requests`."""
    return code_name != "OK" or _success_log.isEnabledFor(logging.INFO)


def log_call(
    method: str,
    code_name: str,
    seconds: float,
    head: bytes,
    failure: WireStatus | None = None,
    trace_id: str = "",
) -> None:
    """Write the line of a finished call.

    Args:
        method: full method name, /SERVICE/METHOD.
        code_name: name of the status code, such as OK.
        seconds: duration from the request to the end of the call.
        head: first `HEAD_BYTES` of the serialized request.
        failure: status that the server sent; None if gRPC set the status.
        trace_id: id of the call's trace, "" for none.
    """
    if code_name == "OK":
        if _success_log.isEnabledFor(logging.INFO):
            _write(_success_log, logging.INFO, method, code_name, seconds, head, None, trace_id)
        return
    if code_name in _SERVER_FAILED:
        level = logging.ERROR
    else:
        level = logging.WARNING if code_name in _OVERLOAD else logging.INFO
    if log.isEnabledFor(level) and LIMIT.admit(code_name, level):
        _write(log, level, method, code_name, seconds, head, failure, trace_id)


def model_of(method: str, head: bytes) -> str:
    """Parse NAME or NAME:VERSION from the first bytes of a request; "" if it names no model."""
    if method not in _WITH_MODEL or len(head) < 2 or head[0] != _MODEL_TAG or head[1] > 127:
        return ""
    try:
        ref = tensor_pb2.ModelRef.FromString(head[2 : 2 + head[1]])
    except DecodeError:
        return ""
    name = ref.name[:80]
    return f"{name}:{ref.version}" if ref.version else name


def _write(
    logger: logging.Logger,
    level: int,
    method: str,
    code_name: str,
    seconds: float,
    head: bytes,
    failure: WireStatus | None,
    trace_id: str,
) -> None:
    model = model_of(method, head)
    request_id = failure.request_id if failure else secrets.token_hex(8)
    duration_ms = round(seconds * 1000, 3)
    text = failure.text if failure else ""
    logger.log(
        level,
        "%s %s model=%s %.1f ms, request id %s%s%s%s",
        method,
        code_name,
        # The name comes from the client: escape it, so that it cannot forge a log line.
        ascii(model)[1:-1] or "-",
        duration_ms,
        request_id,
        f", trace id {trace_id}" if trace_id else "",
        ": " if text else "",
        text,
        exc_info=failure.cause if failure else None,
        extra={
            "request_id": request_id,
            "method": method,
            "code": code_name,
            "model": model,
            "duration_ms": duration_ms,
            **({"trace_id": trace_id} if trace_id else {}),
        },
    )
