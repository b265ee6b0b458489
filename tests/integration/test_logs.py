"""Tests of the log of a running server: call lines, readable or JSON."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from served import Server, ref, served

TIMEOUT_S = 20.0
SERVICE = "/latentserve.v1.GenerativeService/"


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


@pytest.fixture
def server(exports: Path, tmp_path: Path) -> Iterator[Server]:
    flags = ("--log-format", "json", "--default-model", "tiny-vae")
    with served(exports, tmp_path / "log", *flags, delay_s=0.3) as running:
        yield running


def request_lines(server: Server) -> list[dict[str, Any]]:
    """Return the log lines of calls; fail if a line cannot be parsed."""
    lines = [json.loads(line) for line in server.log.splitlines()]
    return [line for line in lines if "request_id" in line]


def request_id(error: grpc.RpcError) -> str:
    content = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for packed in status_pb2.Status.FromString(content).details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            return str(info.metadata["request_id"])
    raise AssertionError("the status has no ErrorInfo")


def fail(server: Server) -> list[tuple[str, str, str, str]]:
    """Make one call for each kind of failure; return (method, code, model, request id) of each."""
    wrong = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"1234")
    image = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32,
        shape=[1, 1, tiny_models.SIZE, tiny_models.SIZE],
        data=b"\x00\x00\x00\x3f" * tiny_models.SIZE**2,
    )
    table: list[tuple[str, str, str, Any]] = [
        ("Sample", "NOT_FOUND", "tiny-dog", pb.SampleRequest(model=ref("tiny-dog"), count=1)),
        ("Sample", "INVALID_ARGUMENT", "tiny-vae:1", pb.SampleRequest(model=ref("tiny-vae", 1))),
        ("Decode", "INVALID_ARGUMENT", "", pb.DecodeRequest(latents=wrong)),
        (
            "Reconstruct",
            "INTERNAL",
            "tiny-vae",
            pb.ReconstructRequest(model=ref("tiny-vae"), images=tensor_pb2.Images(tensor=image)),
        ),
    ]
    failed = []
    with server.generative() as stub:
        for method, code, model, request in table:
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub, method)(request, timeout=TIMEOUT_S)
            assert caught.value.code() == getattr(grpc.StatusCode, code)
            failed.append((SERVICE + method, code, model, request_id(caught.value)))
        stream = stub.SampleStream(pb.SampleStreamRequest(count=0), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        failed.append((SERVICE + "SampleStream", "INVALID_ARGUMENT", "", request_id(caught.value)))
    return failed


def test_each_failed_call_logs_one_line_with_its_request_id(server: Server) -> None:
    with server.generative() as stub:
        stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
    failed = fail(server)
    server.wait_for_log(failed[-1][3])
    assert server.stop() == 0
    lines = request_lines(server)
    found = [(line["method"], line["code"], line["model"], line["request_id"]) for line in lines]
    assert sorted(found) == sorted(failed)
    assert all(line["duration_ms"] > 0 for line in lines)
    assert all(line["worker"] == 0 for line in lines)
    levels = {line["code"]: line["level"] for line in lines}
    assert levels == {"NOT_FOUND": "info", "INVALID_ARGUMENT": "info", "INTERNAL": "error"}
    # No data of the client.
    assert not re.search(r"127\.0\.0\.1:(?!0)", "".join(line["message"] for line in lines))


def test_cancelled_and_expired_calls_log_a_line(server: Server) -> None:
    with server.generative() as stub:
        # The connection is open, so the deadline passes in the queue and not during the connect.
        stub.Sample(pb.SampleRequest(model=ref("tiny-vae"), count=1), timeout=TIMEOUT_S)
        late = stub.Sample.future(pb.SampleRequest(model=ref("tiny-vae"), count=1), timeout=0.2)
        assert late.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        server.wait_for_log('"code": "DEADLINE_EXCEEDED"')
        request = pb.SampleStreamRequest(model=ref("tiny-vae"), count=500, chunk_rows=1)
        stream = stub.SampleStream(request, timeout=TIMEOUT_S)
        next(stream)
        stream.cancel()
        server.wait_for_log('"code": "CANCELLED"')
    assert server.stop() == 0
    found = {line["code"]: (line["model"], line["level"]) for line in request_lines(server)}
    assert found == {
        "DEADLINE_EXCEEDED": ("tiny-vae", "warning"),
        "CANCELLED": ("tiny-vae", "info"),
    }


def test_successful_calls_are_logged_on_request_and_health_never(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--log-format", "json", "--log-requests", "yes")
    with served(exports, tmp_path / "log", *flags) as server:
        with server.generative() as stub, server.models() as models:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            list(stub.SampleStream(pb.SampleStreamRequest(count=3), timeout=TIMEOUT_S))
            models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
            server.wait_for_log("ReloadModels OK")
        assert server.stop() == 0
    found = {line["method"]: (line["code"], line["level"]) for line in request_lines(server)}
    assert found == {
        SERVICE + "Sample": ("OK", "info"),
        SERVICE + "SampleStream": ("OK", "info"),
        "/latentserve.v1.ModelService/ReloadModels": ("OK", "info"),
    }


def test_neither_tokens_nor_metadata_nor_requests_reach_the_log(
    exports: Path, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("right-token-of-the-file", "utf-8")
    flags = (
        *("--token-file", str(token_file), "--allow-plaintext-token", "yes"),
        *("--log-level", "debug", "--log-requests", "yes"),
    )
    with served(exports, tmp_path / "log", *flags) as server:
        with server.generative() as stub:
            for token in ("right-token-of-the-file", "wrong-token-of-a-client"):
                metadata = (("authorization", f"Bearer {token}"), ("x-note", "private-note"))
                for count in (1, 0):
                    with contextlib.suppress(grpc.RpcError):
                        request = pb.SampleRequest(count=count, seed=123454321)
                        stub.Sample(request, timeout=TIMEOUT_S, metadata=metadata)
        server.wait_for_log("UNAUTHENTICATED(.|\n)*UNAUTHENTICATED")
        assert server.stop() == 0
    assert "Sample OK" in server.log
    assert "INVALID_ARGUMENT" in server.log
    for secret in ("right-token", "wrong-token", "Bearer r", "private-note", "123454321"):
        assert secret not in server.log


@pytest.mark.parametrize("form", ["readable", "json"])
def test_a_model_name_cannot_forge_a_line_or_fill_the_log(
    exports: Path, tmp_path: Path, form: str
) -> None:
    with served(exports, tmp_path / "log", "--log-format", form) as server:
        with server.generative() as stub:
            for name in ("x\n2026-01-01 00:00:00,000 INFO all is well", "x\u2028INFO", "n" * 10**6):
                for method, request in (
                    (stub.Sample, pb.SampleRequest(model=ref(name), count=1)),
                    (stub.Decode, pb.DecodeRequest(model=ref(name))),
                ):
                    with pytest.raises(grpc.RpcError) as caught:
                        method(request, timeout=TIMEOUT_S)
                    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                    server.wait_for_log(request_id(caught.value))
        assert server.stop() == 0
    lines = server.log.splitlines()
    assert sum("NOT_FOUND" in line for line in lines) == 6
    start = "{" if form == "json" else time.strftime("%Y-%m-%d ")
    assert all(line.startswith(start) and len(line) < 2000 for line in lines), lines
    assert not any(line.startswith("2026-01-01") for line in lines)


def test_a_flood_of_failed_calls_logs_ten_lines_a_second_and_their_number(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTSERVE_TOKEN", "a-token")
    flags = ("--log-format", "json", "--allow-plaintext-token", "yes")
    with served(exports, tmp_path / "log", *flags) as server:
        seconds = time.monotonic()
        with server.generative() as stub:
            calls = [stub.Sample.future(pb.SampleRequest(), timeout=TIMEOUT_S) for _ in range(600)]
            assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
        assert server.stop() == 0
        periods = time.monotonic() - seconds + 2  # each has ten lines
        lines = [json.loads(line) for line in server.log.splitlines()]
    written = [line for line in lines if line.get("code") == "UNAUTHENTICATED"]
    withheld = [line for line in lines if line.get("kind") == "UNAUTHENTICATED"]
    assert 10 <= len(written) <= 10 * periods < 600
    assert len(written) + sum(line["withheld"] for line in withheld) == 600
    assert "more lines in" in withheld[0]["message"]
    assert {line["level"] for line in withheld} == {"info"}
