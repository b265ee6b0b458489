"""Access log: one line per failed call."""

from __future__ import annotations

import logging

import pytest

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2
from latentserve_server.errors import EngineFailure, InvalidRequest, QueueFull
from latentserve_server.observability.logs import format as log_format
from latentserve_server.observability.logs.failed_calls import HEAD_BYTES, log_call, model_of
from latentserve_server.status import explain

SAMPLE = "/latentserve.v1.GenerativeService/Sample"
RELOAD = "/latentserve.v1.ModelService/ReloadModels"


def sample_request(name: str = "tiny-vae", version: int = 0) -> bytes:
    ref = tensor_pb2.ModelRef(name=name, version=version)
    request = generative_service_pb2.SampleRequest(model=ref, count=3)
    return request.SerializeToString()[:HEAD_BYTES]


def test_the_model_is_read_from_the_first_bytes_of_every_request_with_a_model() -> None:
    ref = tensor_pb2.ModelRef(name="tiny-vae", version=3)
    service = generative_service_pb2.DESCRIPTOR.services_by_name["GenerativeService"]
    get_model = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].methods_by_name
    methods = [*service.methods, get_model["GetModel"]]
    assert len(methods) == 7
    for method in methods:
        message_type = method.input_type._concrete_class
        head = message_type(model=ref).SerializeToString()[:HEAD_BYTES]
        assert model_of(f"/{method.containing_service.full_name}/{method.name}", head) == (
            "tiny-vae:3"
        )


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x0a",
        b"\x0a\x7f",
        b"\x0a\x05\xff\xff\xff\xff\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x12\x02\x08\x01",
        sample_request(""),
        generative_service_pb2.SampleRequest(count=1).SerializeToString(),
    ],
)
def test_bytes_without_a_model_name_give_an_empty_string(head: bytes) -> None:
    assert model_of(SAMPLE, head) == ""


def test_the_first_field_of_a_request_without_a_model_is_not_read_as_a_model() -> None:
    request = model_service_pb2.ReloadModelsRequest(names=["\x0a\x04oops"])
    assert model_of(RELOAD, request.SerializeToString()) == ""


def test_a_long_name_is_truncated() -> None:
    assert model_of(SAMPLE, sample_request("n" * 120)) == "n" * 80


def test_a_failed_call_has_one_line_with_all_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status = explain(InvalidRequest("count: 0 was sent"))
    log_call(SAMPLE, "INVALID_ARGUMENT", 0.0123, sample_request(version=2), status)
    (record,) = caplog.records
    found = vars(record)
    assert (found["method"], found["code"], found["model"]) == (
        SAMPLE,
        "INVALID_ARGUMENT",
        "tiny-vae:2",
    )
    assert found["duration_ms"] == 12.3
    assert found["request_id"] == status.request_id
    for text in (SAMPLE, "INVALID_ARGUMENT", "tiny-vae:2", "12.3 ms", "count: 0 was sent"):
        assert text in record.getMessage()
    assert status.request_id in record.getMessage()


def test_each_cancelled_call_has_a_line_with_its_own_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log_call(SAMPLE, "CANCELLED", 1.0, b"")
    log_call(SAMPLE, "CANCELLED", 1.0, b"")
    first, second = (vars(record)["request_id"] for record in caplog.records)
    assert first != second


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (InvalidRequest("text"), logging.INFO),
        (QueueFull("text"), logging.WARNING),
        (EngineFailure("text"), logging.ERROR),
        (ValueError("secret"), logging.ERROR),
    ],
)
def test_the_level_depends_on_the_kind_of_error(
    caplog: pytest.LogCaptureFixture, error: Exception, level: int
) -> None:
    caplog.set_level(logging.INFO)
    status = explain(error)
    log_call(SAMPLE, status.code_name, 0.1, b"", status)
    (record,) = caplog.records
    assert record.levelno == level
    expected = not isinstance(error, ValueError)
    assert (record.exc_info is None) == expected
    assert "secret" not in status.message


def test_a_successful_call_is_logged_only_if_enabled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, log_format.SUCCESS_LOGGER):
        log_call(SAMPLE, "OK", 0.1, sample_request())
    assert not caplog.records
    with caplog.at_level(logging.INFO, log_format.SUCCESS_LOGGER):
        log_call(SAMPLE, "OK", 0.1, sample_request())
    (record,) = caplog.records
    assert "OK model=tiny-vae 100.0 ms" in record.getMessage()


def test_a_name_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_call(SAMPLE, "NOT_FOUND", 0.1, sample_request("x\n2026-01-01 INFO all is well"))
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.parametrize("trace_id", ["", "0af7651916cd43dd8448eb211c80319c"])
def test_the_trace_id_of_a_call_is_logged(caplog: pytest.LogCaptureFixture, trace_id: str) -> None:
    caplog.set_level(logging.INFO)
    log_call(SAMPLE, "INTERNAL", 0.1, b"", explain(EngineFailure("text")), trace_id)
    (record,) = caplog.records
    assert vars(record).get("trace_id", "") == trace_id
    assert ("trace id" in record.getMessage()) == bool(trace_id)
    assert trace_id in record.getMessage()
