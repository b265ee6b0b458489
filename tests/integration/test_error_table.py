"""Tests of every row of the error table: code, reason, field and retry delay.

The table is in docs/protocol.md; `test_every_row_of_the_page_is_tested` compares both.
"""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from refusals import Refusal, refused, secrets_of
from request_target import to_tensor
from scraped import value
from served import Server, launched, ref, served

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")
TIMEOUT_S = 10.0
ENGINE_S = 0.4
ATTEMPTS = 5
CHUNKS = 6
QUEUE_ROWS = 8
GENERATIVE = "/latentserve.v1.GenerativeService/"
MODELS = "/latentserve.v1.ModelService/"
VAE = {"model": "tiny-vae", "operation": "sample"}


@dataclass
class FailingServer:
    """A server with a slow engine and small limits, and the error of a call during its loading."""

    server: Server
    while_loading: Refusal

    def send(self, method: str, request: Message | bytes, timeout_s: float = TIMEOUT_S) -> Refusal:
        """Send a request that must fail, and return its error."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        with self.server.channel() as channel:
            if method.endswith("SampleStream"):
                stream = channel.unary_stream(method)
                return refused(lambda: list(stream(data, timeout=timeout_s)))
            return refused(channel.unary_unary(method), data, timeout=timeout_s)


@pytest.fixture(scope="module")
def failing(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FailingServer]:
    folder = tmp_path_factory.mktemp("failing")
    (folder / "token").write_text("a-token-for-reloads")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = (
        *("--listen", address, "--default-model", "tiny-vae", "--metrics-listen", "127.0.0.1:0"),
        *("--max-request-rows", str(QUEUE_ROWS), "--queue-rows", str(QUEUE_ROWS)),
        *("--reload-token-file", str(folder / "token"), "--allow-plaintext-token", "yes"),
    )
    log_path = folder / "log.txt"
    with launched(tiny_exports, log_path, *flags, delay_s=ENGINE_S, warm_up_delay_s=0.3) as server:
        server.address = address
        # Polled here, because gRPC waits a second after a failed connection.
        wait_for(lambda: port_is_open(address))
        with server.generative() as stub:
            while_loading = refused(stub.Sample, pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        server.wait_until_serving()
        yield FailingServer(server, while_loading)
        assert server.process.poll() is None, server.log


def port_is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def images(array: Any) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=to_tensor(array))


def encode(array: Any, **fields: Any) -> pb.EncodeRequest:
    return pb.EncodeRequest(images=images(array), **fields)


def with_value(number: float) -> Any:
    x = tiny_models.images(1)
    x[0, 0, 0, 0] = number
    return x


def truncated() -> pb.EncodeRequest:
    request = encode(tiny_models.images(1))
    request.images.tensor.data = request.images.tensor.data[:-1]
    return request


def of_type(data_type: int) -> pb.EncodeRequest:
    request = encode(tiny_models.images(1))
    request.images.tensor.data_type = data_type  # type: ignore[assignment]
    return request


def of_files(*files: bytes) -> pb.EncodeRequest:
    encoded = tensor_pb2.EncodedImages(files=files)
    return pb.EncodeRequest(images=tensor_pb2.Images(encoded=encoded))


def unread_replies(_: FailingServer) -> Refusal:
    """Return the refusal of a call on a connection with a stream that is not read."""
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 0))
    rows = 1024  # more bytes than the connection's window
    stream = pb.SampleStreamRequest(count=9 * rows, chunk_rows=rows)
    with tempfile.TemporaryDirectory() as folder:
        tiny_models.write_model(Path(folder), "tiny-vae")
        flags = ("--reply-bytes", "1", "--metrics-listen", "127.0.0.1:0")
        with (
            served(Path(folder), Path(folder) / "log", *flags) as server,
            grpc.insecure_channel(server.address, options=options) as channel,
        ):
            data = stream.SerializeToString()
            unread = channel.unary_stream(GENERATIVE + "SampleStream")(data, timeout=TIMEOUT_S)
            wait_for(lambda: value(server, "latentserve_unwritten_reply_bytes") > 0)
            request = pb.SampleRequest(count=1).SerializeToString()
            refusal = refused(
                channel.unary_unary(GENERATIVE + "Sample"), request, timeout=TIMEOUT_S
            )
            unread.cancel()
    return refusal


def full_queue(at: FailingServer) -> Refusal:
    """Send one call that runs, one that fills the queue, and two more calls."""
    request = pb.SampleRequest(count=QUEUE_ROWS)
    with at.server.generative() as stub:
        calls = [stub.Sample.future(request, timeout=TIMEOUT_S) for _ in range(4)]
        errors = [error for call in calls if (error := call.exception())]
    assert 1 <= len(errors) < len(calls)
    return Refusal.of(errors[0])


def in_flight(at: FailingServer) -> float:
    """Return the number of calls in flight."""
    began = value(at.server, "grpc_server_started_total", grpc_method="Sample")
    return began - value(at.server, "grpc_server_handled_total", grpc_method="Sample")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def deadline(at: FailingServer) -> Refusal:
    """Send a call whose deadline passes in the queue, and whose row the engine never runs."""
    with at.server.generative() as stub:
        for _ in range(ATTEMPTS):
            wait_for(lambda: in_flight(at) == 0)
            rows = value(at.server, "latentserve_batch_rows_sum", **VAE)
            busy = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            wait_for(lambda busy=busy: in_flight(at) == 1 or busy.done())  # type: ignore[misc]
            refusal = refused(stub.Sample, pb.SampleRequest(count=1), timeout=0.1)
            if not busy.done():  # the other call was queued
                break
        assert busy.result()
        assert stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        wait_for(lambda: in_flight(at) == 0)
    assert value(at.server, "latentserve_batch_rows_sum", **VAE) == rows + 2
    return refusal


def failing_engine(at: FailingServer) -> Refusal:
    refusal = at.send(
        GENERATIVE + "Reconstruct", pb.ReconstructRequest(images=images(with_value(0.5)))
    )
    request_id = refusal.metadata["request_id"]
    assert request_id in refusal.message
    assert "secret" not in " ".join(refusal.texts)
    line = at.server.wait_for_log(rf".*{request_id}.*").group()
    assert "secret detail of a failing engine" in line
    return refusal


def sent(method: str, request: Message | bytes) -> Callable[[FailingServer], Refusal]:
    return lambda at: at.send(method if method.startswith("/") else GENERATIVE + method, request)


@dataclass(frozen=True)
class Row:
    """One row of the table: a function that provokes the error, and the expected details."""

    provoke: Callable[[FailingServer], Refusal]
    code: str
    reason: str = ""
    field: str = ""
    metadata: str = ""
    retry: bool = False


def invalid(method: str, request: Message, field: str) -> Row:
    return Row(sent(method, request), "INVALID_ARGUMENT", "INVALID_REQUEST", field)


GAN = ref("tiny-gan")
ONE = tiny_models.images(1)
ROWS = {
    "wrong shape": invalid("Encode", encode(np.zeros((1, 16), "<f4")), "images.tensor.shape"),
    "wrong dtype": invalid("Encode", of_type(0), "images.tensor.data_type"),
    "wrong byte length": invalid("Encode", truncated(), "images.tensor.data"),
    "NaN": invalid("Encode", encode(with_value(np.nan)), "images.tensor.data"),
    "infinity": invalid(
        "Decode",
        pb.DecodeRequest(latents=to_tensor(np.full((1, 3), np.inf, "<f4"))),
        "latents.data",
    ),
    "out of range": invalid(
        "Reconstruct", pb.ReconstructRequest(images=images(with_value(3))), "images.tensor.data"
    ),
    "unreadable PNG": invalid("Encode", of_files(b"\x89PNG"), "images.encoded.files[0]"),
    "no images": invalid("Encode", pb.EncodeRequest(), "images"),
    "count out of range": invalid("Sample", pb.SampleRequest(count=QUEUE_ROWS + 1), "count"),
    "count of a stream": invalid("SampleStream", pb.SampleStreamRequest(count=0), "count"),
    "chunks out of range": invalid(
        "SampleStream", pb.SampleStreamRequest(count=1, chunk_rows=-1), "chunk_rows"
    ),
    "offset out of range": invalid("Sample", pb.SampleRequest(count=1, offset=-1), "offset"),
    "temperature": invalid("Sample", pb.SampleRequest(count=1, temperature=11), "temperature"),
    "unknown format": invalid(
        "Sample",
        pb.SampleRequest(count=1, output_format=77),  # type: ignore[arg-type]
        "output_format",
    ),
    "negative version": invalid(
        "Sample", pb.SampleRequest(model=ref("", -1), count=1), "model.version"
    ),
    "no message": Row(sent("Encode", b"\xff\xff"), "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "unknown model": Row(
        sent("Encode", encode(ONE, model=ref("nobody"))),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        metadata="models",
    ),
    "unknown version": Row(
        sent("SampleStream", pb.SampleStreamRequest(model=ref("tiny-vae", 9), count=1)),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        metadata="models",
    ),
    "GetModel of an unknown model": Row(
        sent(MODELS + "GetModel", models_pb.GetModelRequest(model=ref("nobody"))),
        "NOT_FOUND",
        "MODEL_NOT_FOUND",
        metadata="models",
    ),
    "no such operation": Row(
        sent("Encode", encode(ONE, model=GAN)),
        "FAILED_PRECONDITION",
        "OPERATION_NOT_SUPPORTED",
        metadata="operations",
    ),
    "no log-variance": Row(
        sent("Encode", encode(ONE, model=ref("tiny-autoencoder"), seed=1)),
        "FAILED_PRECONDITION",
        "OPERATION_NOT_SUPPORTED",
        metadata="operations",
    ),
    "queue full": Row(full_queue, "RESOURCE_EXHAUSTED", "QUEUE_FULL", retry=True),
    "unread replies": Row(unread_replies, "RESOURCE_EXHAUSTED", "REPLIES_UNREAD", retry=True),
    # Sent by gRPC itself, without details.
    "message too large": Row(
        sent("Encode", encode(np.zeros((70_000, 1, 4, 4), "<f4"))), "RESOURCE_EXHAUSTED"
    ),
    # The client's gRPC library fails the call before the server's status arrives.
    "deadline": Row(deadline, "DEADLINE_EXCEEDED"),
    "loading": Row(lambda at: at.while_loading, "UNAVAILABLE", "NOT_READY", retry=True),
    "no token": Row(
        sent(MODELS + "ReloadModels", models_pb.ReloadModelsRequest()),
        "UNAUTHENTICATED",
        "TOKEN_REQUIRED",
    ),
    "no such method": Row(sent("Dream", b""), "UNIMPLEMENTED"),
    "output not finite": Row(
        sent("Reconstruct", pb.ReconstructRequest(images=images(with_value(0.25)))),
        "INTERNAL",
        "OUTPUT_NOT_FINITE",
        metadata="request_id",
    ),
    "anything else": Row(failing_engine, "INTERNAL", "ENGINE_FAILURE", metadata="request_id"),
}


@pytest.mark.parametrize("condition", ROWS)
def test_a_row_of_the_error_table(failing: FailingServer, condition: str) -> None:
    row = ROWS[condition]
    refusal = row.provoke(failing)
    assert (refusal.code, refusal.reason) == (row.code, row.reason)
    assert refusal.fields == ([row.field] if row.field else [])
    if row.reason:
        assert refusal.metadata["request_id"]
        assert row.metadata in ("", *refusal.metadata)
    check_retry(refusal, row.retry)


def check_retry(refusal: Refusal, expected: bool) -> None:
    """Check that RetryInfo and the trailer for gRPC have the same delay, or are both absent."""
    if not expected:
        assert (refusal.retry_after_s, refusal.pushback_ms) == (None, None)
        return
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s > 0
    assert refusal.pushback_ms == int(refusal.retry_after_s * 1000)


def first_refusal(stub: Any, request: pb.SampleRequest) -> Refusal:
    """Send calls until one is refused, which happens shortly after the server logs its stop."""
    while True:
        error = stub.Sample.future(request, timeout=TIMEOUT_S).exception()
        if error is not None:
            return Refusal.of(error)


def test_draining(tiny_exports: Path, tmp_path: Path) -> None:
    with served(tiny_exports, tmp_path / "log", delay_s=0.5) as server:
        request = pb.SampleRequest(model=ref("tiny-vae"), count=1)
        with server.generative() as stub:
            in_flight = stub.Sample.future(request, timeout=TIMEOUT_S)
            busy = stub.SampleStream(
                pb.SampleStreamRequest(model=ref("tiny-vae"), count=CHUNKS, chunk_rows=1),
                timeout=TIMEOUT_S,
            )
            next(busy)
            server.process.terminate()
            server.wait_for_log("stopping")
            refusal = first_refusal(stub, request)
            assert in_flight.result()
            assert len(list(busy)) == CHUNKS - 1
        assert server.process.wait(TIMEOUT_S) == 0
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "NOT_READY")
    check_retry(refusal, expected=True)


def test_every_row_of_the_page_is_tested() -> None:
    table = PAGE.partition("| code | when | details |")[2].partition("\n\n")[0]
    codes = set(re.findall(r"^\| ([A-Z_]+) \|", table, re.MULTILINE))
    # CANCELLED is tested with the handover of a shared port, in test_workers.py.
    assert codes == {row.code for row in ROWS.values()} | {"CANCELLED"}
    for row in ROWS.values():
        assert (
            row.reason in ("", "INVALID_REQUEST", "NOT_READY", "ENGINE_FAILURE")
            or row.reason in table
        )


# --- secrets that must not be sent ------------------------------------------------------------


def test_the_search_for_secrets_finds_known_secrets() -> None:
    assert secrets_of("Load model from /srv/models/x.onnx failed") == ["/srv/models"]
    assert secrets_of('  File "batcher.py", line 12, in run') == [".py"]
    assert secrets_of("/latentserve.v1.GenerativeService/Encode takes one message") == []
    assert secrets_of("1/2, n/a, input/output, ratios of 3/4/5") == []
