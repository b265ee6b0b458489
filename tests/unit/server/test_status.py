"""Tests of error statuses on the wire: gRPC's error model, without internal details."""

from __future__ import annotations

import urllib.parse
from typing import TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from latentserve_server import errors
from latentserve_server.errors import CallError, EngineFailure, FieldViolation, InvalidRequest
from latentserve_server.status import WireStatus, wire_status

M = TypeVar("M", bound=Message)

CODES = {
    errors.InvalidRequest: ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    errors.ModelNotFound: ("NOT_FOUND", "MODEL_NOT_FOUND"),
    errors.UnknownService: ("NOT_FOUND", "SERVICE_NOT_FOUND"),
    errors.OperationNotSupported: ("FAILED_PRECONDITION", "OPERATION_NOT_SUPPORTED"),
    errors.ModelFolderUnreadable: ("FAILED_PRECONDITION", "MODEL_FOLDER_UNREADABLE"),
    errors.QueueFull: ("RESOURCE_EXHAUSTED", "QUEUE_FULL"),
    errors.RepliesUnread: ("RESOURCE_EXHAUSTED", "REPLIES_UNREAD"),
    errors.OutputNotFinite: ("INTERNAL", "OUTPUT_NOT_FINITE"),
    errors.DeadlineExceeded: ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED_IN_QUEUE"),
    errors.Unavailable: ("UNAVAILABLE", "NOT_READY"),
    errors.Unauthenticated: ("UNAUTHENTICATED", "TOKEN_REQUIRED"),
    errors.EngineFailure: ("INTERNAL", "ENGINE_FAILURE"),
}
KINDS = list(CODES)
OWN_TEXTS = (EngineFailure, errors.OutputNotFinite)


def details_of(status: WireStatus) -> status_pb2.Status:
    content = dict(status.trailers)["grpc-status-details-bin"]
    assert isinstance(content, bytes)
    return status_pb2.Status.FromString(content)


def find(status: WireStatus, kind: type[M]) -> M | None:
    for packed in details_of(status).details:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None


def get(status: WireStatus, kind: type[M]) -> M:
    found = find(status, kind)
    assert found is not None, f"the status has no {kind.__name__}"
    return found


def test_the_table_has_every_call_error() -> None:
    assert set(CallError.__subclasses__()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_its_code_in_the_status_and_in_the_details(kind: type[CallError]) -> None:
    code, _ = CODES[kind]
    status = wire_status(kind("what went wrong"), request_id="4711")
    assert status.code_name == code
    details = details_of(status)
    assert details.code == code_pb2.Code.Value(code)
    assert details.message == status.message


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_reason_that_a_program_can_compare(kind: type[CallError]) -> None:
    info = get(wire_status(kind("text"), request_id="4711"), error_details_pb2.ErrorInfo)
    assert info.reason == CODES[kind][1]
    assert info.domain == "latentserve"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OWN_TEXTS])
def test_the_text_and_the_metadata_are_sent(kind: type[CallError]) -> None:
    status = wire_status(kind("the text", metadata={"models": "a, b"}), request_id="4711")
    assert status.message == "the text"
    info = get(status, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"models": "a, b", "request_id": "4711"}


def test_an_engine_failure_sends_the_request_id_but_not_its_text() -> None:
    inside = "/srv/models/tiny/1/decode.onnx: CUDA error 700"
    status = wire_status(EngineFailure(inside), request_id="4711")
    assert "4711" in status.message
    info = get(status, error_details_pb2.ErrorInfo)
    assert info.metadata["request_id"] == "4711"
    wire = status.message.encode() + details_of(status).SerializeToString()
    for part in (inside, "CUDA", "decode.onnx"):
        assert part.encode() not in wire


def test_field_violations_are_a_bad_request() -> None:
    violations = [FieldViolation("images.tensor.shape", "[1] was sent"), FieldViolation("x", "y")]
    status = wire_status(InvalidRequest("text", violations=violations), request_id="4711")
    found = get(status, error_details_pb2.BadRequest).field_violations
    assert [(each.field, each.description) for each in found] == [
        ("images.tensor.shape", "[1] was sent"),
        ("x", "y"),
    ]


def test_without_violations_there_is_no_bad_request() -> None:
    status = wire_status(InvalidRequest("text"), request_id="4711")
    assert find(status, error_details_pb2.BadRequest) is None


@pytest.mark.parametrize(
    ("seconds", "pushback"), [(1.0, "1000"), (0.25, "250"), (5.0, "5000"), (0.01, "10")]
)
@pytest.mark.parametrize("kind", [errors.QueueFull, errors.Unavailable])
def test_retry_after_is_sent_as_retry_info_and_pushback_trailer(
    kind: type[CallError], seconds: float, pushback: str
) -> None:
    status = wire_status(kind("text", retry_after_s=seconds), request_id="4711")
    delay = get(status, error_details_pb2.RetryInfo).retry_delay
    assert delay.seconds + delay.nanos / 1e9 == pytest.approx(seconds)
    assert dict(status.trailers)["grpc-retry-pushback-ms"] == pushback


def test_without_retry_after_no_retry_is_suggested() -> None:
    status = wire_status(InvalidRequest("text"), request_id="4711")
    assert find(status, error_details_pb2.RetryInfo) is None
    assert [key for key, _ in status.trailers] == ["grpc-status-details-bin"]


def wire_bytes(status: WireStatus) -> int:
    """Return an upper bound of the trailers' size as HTTP/2 headers, each with 32 extra bytes."""
    headers = {
        "grpc-status": "3",
        "grpc-message": urllib.parse.quote(status.message, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~"),
        **dict(status.trailers),
    }
    total = 0
    for key, value in headers.items():
        # Binary headers are sent as base64.
        length = -(-len(value) // 3) * 4 if isinstance(value, bytes) else len(value.encode())
        total += len(key) + length + 32
    return total


def huge(kind: type[CallError], letter: str) -> CallError:
    text = letter * 100_000
    return kind(
        text,
        metadata={"models": text, "operations": text},
        violations=[FieldViolation(f"images.encoded.files[{i}]", text) for i in range(1000)],
        retry_after_s=1.0,
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.OutputNotFinite])
def test_huge_texts_are_cut_so_that_the_trailers_stay_below_8_kib(kind: type[CallError]) -> None:
    status = wire_status(huge(kind, "x"), request_id="4711")
    assert wire_bytes(status) < 8192
    assert get(status, error_details_pb2.ErrorInfo).reason == CODES[kind][1]
    assert len(get(status, error_details_pb2.BadRequest).field_violations) >= 1


@pytest.mark.parametrize("letter", ["%", "é", "模", "🂡"])
def test_percent_encoded_characters_count_with_their_encoded_size(letter: str) -> None:
    status = wire_status(huge(InvalidRequest, letter), request_id="4711")
    assert wire_bytes(status) < 8192
    assert letter in status.message
