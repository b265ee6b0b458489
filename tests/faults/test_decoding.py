"""Requests that wait to be decoded are bounded, refused in time, and leave with their clients."""

from __future__ import annotations

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from scraped import value
from served import ref, served
from vitals import eventually

DECODING = "latentserve_decoding_bytes"
REFUSED = "latentserve_decoding_refused_total"
METRICS = ("--metrics-listen", "127.0.0.1:0")
FILES = 1024
CALLS = 30
TIMEOUT_S = 20.0


def image_files() -> pb.EncodeRequest:
    """Return a request of about 80 KB that takes about 0.1 s to decode."""
    out = io.BytesIO()
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(out, "PNG")
    files = tensor_pb2.EncodedImages(files=[out.getvalue()] * FILES)
    return pb.EncodeRequest(model=ref("tiny-vae"), images=tensor_pb2.Images(encoded=files))


REQUEST = image_files()


def test_requests_that_wait_to_be_decoded_are_bounded(exports: Path, tmp_path: Path) -> None:
    limit = 3 * REQUEST.ByteSize()
    flags = ("--queue-bytes", str(limit), "--queue-rows", "100000")
    with (
        served(exports, tmp_path / "log", *METRICS, *flags) as server,
        server.generative() as stub,
    ):
        calls = [stub.Encode.future(REQUEST, timeout=TIMEOUT_S) for _ in range(CALLS)]
        errors = [call.exception() for call in calls]
        refused = [error for error in errors if error is not None]
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "wait to be decoded" in refused[0].details()
        assert "grpc-retry-pushback-ms" in dict(refused[0].trailing_metadata())
        assert value(server, REFUSED, reason="full") == len(refused)
        assert len(errors) - len(refused) >= 3
        assert len(stub.Encode(REQUEST, timeout=TIMEOUT_S).latents.data) == FILES * 3 * 4


def test_requests_leave_with_their_clients_before_they_are_decoded(
    exports: Path, tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", *METRICS) as server, server.generative() as stub:
        calls = [stub.Encode.future(REQUEST, timeout=TIMEOUT_S) for _ in range(CALLS)]
        eventually(lambda: value(server, DECODING) > 5 * REQUEST.ByteSize())
        for call in calls:
            call.cancel()
        eventually(lambda: value(server, DECODING) == 0)
        ended = {"grpc_method": "Encode", "grpc_code": "CANCELLED"}
        eventually(lambda: value(server, "grpc_server_handled_total", **ended) >= CALLS // 2)
        ran = value(server, "latentserve_batch_rows_sum", operation="encode")
        assert ran < CALLS * FILES / 2, "cancelled requests were decoded and run"
        stub.Encode(REQUEST, timeout=TIMEOUT_S)


def test_a_deadline_that_would_pass_before_the_decoding_is_refused_at_once(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--queue-rows", "100000")
    with (
        served(exports, tmp_path / "log", *METRICS, *flags) as server,
        server.generative() as stub,
    ):
        for _ in range(3):  # the duration of decoding is measured
            stub.Encode(REQUEST, timeout=TIMEOUT_S)
        calls = [stub.Encode.future(REQUEST, timeout=TIMEOUT_S) for _ in range(CALLS)]
        eventually(lambda: value(server, DECODING) > 10 * REQUEST.ByteSize())
        with pytest.raises(grpc.RpcError) as late:
            stub.Encode(REQUEST, timeout=0.1)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: value(server, REFUSED, reason="deadline") == 1)
        for call in calls:
            call.cancel()
