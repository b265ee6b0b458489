"""Tests of invalid input over a real connection, and of the call after it."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from served import Server, ref, served

TIMEOUT_S = 10.0
F32 = tensor_pb2.DATA_TYPE_FLOAT32
GENERATIVE = "/latentserve.v1.GenerativeService/"
MODELS = "/latentserve.v1.ModelService/"


def tensor(shape: tuple[int, ...], *, data_type: int = F32, data: bytes | None = None) -> Any:
    size = {F32: 4, tensor_pb2.DATA_TYPE_UINT8: 1}.get(data_type, 4)
    count = int(np.prod([max(0, n) for n in shape]))
    return tensor_pb2.Tensor(
        data_type=data_type,  # type: ignore[arg-type]
        shape=shape,
        data=bytes(count * size) if data is None else data,
    )


def encode(images: Any, **fields: Any) -> pb.EncodeRequest:
    return pb.EncodeRequest(images=images, **fields)


def of_tensor(*args: Any, **fields: Any) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=tensor(*args, **fields))


def of_files(*files: bytes) -> tensor_pb2.Images:
    return tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))


def values(*numbers: float) -> bytes:
    array = np.zeros(16, np.float32)
    array[: len(numbers)] = numbers
    return array.tobytes()


def jpeg(*, exif_segments: int = 0, more_scans: int = 0) -> bytes:
    """Return a progressive JPEG with segments that its pixels do not need."""
    out = io.BytesIO()
    Image.new("L", (4, 4)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    exif = b"\xff\xe1\0\x0aExif\0\0ab"
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:2] + exif * exif_segments + data[2:-2] + scan * more_scans + data[-2:]


ONE = (1, 1, 4, 4)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

# name -> (method, request, code, pattern of the message)
TABLE: dict[str, tuple[str, Message | bytes, grpc.StatusCode, str]] = {
    "wrong rank": (
        "Encode",
        encode(of_tensor((1, 16))),
        INVALID,
        r"images\.tensor\.shape: \[1, 16\] was sent, expected \[n, 1, 4, 4\]",
    ),
    "wrong size": (
        "Encode",
        encode(of_tensor((1, 1, 28, 28))),
        INVALID,
        r"\[1, 1, 28, 28\] was sent, expected \[n, 1, 4, 4\]",
    ),
    "negative size": (
        "Encode",
        encode(of_tensor((-1, 1, 4, 4))),
        INVALID,
        r"-1 rows were sent, expected 1 to 32",
    ),
    "absurd size": (
        "Encode",
        encode(of_tensor((2**62, 1, 4, 4), data=b"")),
        INVALID,
        r"4611686018427387904 rows were sent",
    ),
    "no type": (
        "Encode",
        encode(of_tensor(ONE, data_type=0)),
        INVALID,
        r"data_type: DATA_TYPE_UNSPECIFIED was sent, expected DATA_TYPE_FLOAT32, ",
    ),
    "unknown type": (
        "Encode",
        encode(of_tensor(ONE, data_type=77)),
        INVALID,
        r"data_type: 77 was sent",
    ),
    "uint8 latents": (
        "Decode",
        pb.DecodeRequest(latents=tensor((1, 3), data_type=tensor_pb2.DATA_TYPE_UINT8)),
        INVALID,
        r"latents\.data_type: DATA_TYPE_UINT8 was sent",
    ),
    "too few bytes": (
        "Encode",
        encode(of_tensor(ONE, data=bytes(63))),
        INVALID,
        r"63 bytes were sent, expected 64",
    ),
    "too many bytes": (
        "Encode",
        encode(of_tensor(ONE, data=bytes(65))),
        INVALID,
        r"65 bytes were sent, expected 64",
    ),
    "NaN": (
        "Encode",
        encode(of_tensor(ONE, data=values(0.5, float("nan")))),
        INVALID,
        r"1 values are NaN or infinite, the first in row 0",
    ),
    "infinity in latents": (
        "Decode",
        pb.DecodeRequest(latents=tensor((1, 3), data=np.array([0, np.inf, 0], "<f4").tobytes())),
        INVALID,
        r"latents\.data: 1 values are NaN or infinite",
    ),
    "0 to 255 as floats": (
        "Encode",
        encode(of_tensor(ONE, data=values(255))),
        INVALID,
        r"values from 0 to 255 were sent, expected 0 to 1; divide by 255",
    ),
    "no images": ("Encode", encode(None), INVALID, r"images: nothing was sent"),
    "empty batch": (
        "Encode",
        encode(of_tensor((0, 1, 4, 4))),
        INVALID,
        r"0 rows were sent, expected 1 to 32",
    ),
    "no files": ("Encode", encode(of_files()), INVALID, r"images\.encoded\.files: 0 rows"),
    "one row too many": (
        "Encode",
        encode(of_tensor((33, 1, 4, 4))),
        INVALID,
        r"33 rows were sent, expected 1 to 32; split",
    ),
    "unreadable PNG": (
        "Encode",
        encode(of_files(b"\x89PNG\r\n\x1a\nrubbish")),
        INVALID,
        r"images\.encoded\.files\[0\]: 15 bytes were sent that cannot be read as PNG or JPEG",
    ),
    "JPEG with 10,000 Exif segments": (
        "Encode",
        encode(of_files(jpeg(exif_segments=800), jpeg(exif_segments=10_000))),
        INVALID,
        r"files\[1\]: 12\d{4} bytes were sent that cannot be read as PNG or JPEG",
    ),
    "JPEG longer than its pixels": (
        "Encode",
        encode(of_files(jpeg() + bytes(66_000))),
        INVALID,
        r"6\d{4} bytes were sent for an image of 4 x 4 pixels, expected at most 65792; save it",
    ),
    "JPEG of 101 scans": (
        "Encode",
        encode(of_files(jpeg(more_scans=100))),
        INVALID,
        r"files\[0\]: \d+ bytes were sent that cannot be read as PNG or JPEG",
    ),
    "unknown model": (
        "Encode",
        encode(of_tensor(ONE), model=ref("tiny-vea")),
        NOT_FOUND,
        r"there is no model 'tiny-vea'. Models: tiny-autoencoder, tiny-denoising, tiny-gan, ",
    ),
    "unknown version": (
        "Encode",
        encode(of_tensor(ONE), model=ref("tiny-vae", 2)),
        NOT_FOUND,
        r"tiny-vae has no version 2; it has 3, 1",
    ),
    "negative version": (
        "Encode",
        encode(of_tensor(ONE), model=ref("tiny-vae", -1)),
        INVALID,
        r"model\.version: -1 was sent",
    ),
    "no encoder": (
        "Encode",
        encode(of_tensor(ONE), model=ref("tiny-gan")),
        PRECONDITION,
        r"tiny-gan cannot encode; it can decode, sample",
    ),
    "no posterior": (
        "Encode",
        encode(of_tensor(ONE), model=ref("tiny-autoencoder"), seed=1),
        PRECONDITION,
        r"no log-variance to sample from",
    ),
    "negative count": (
        "Sample",
        pb.SampleRequest(count=-1),
        INVALID,
        r"count: -1 was sent, expected 1 to 32",
    ),
    "no count": ("Sample", pb.SampleRequest(), INVALID, r"count: 0 was sent"),
    "count over the limit": (
        "Sample",
        pb.SampleRequest(count=33),
        INVALID,
        r"count: 33 was sent, expected 1 to 32",
    ),
    "stream over the limit": (
        "SampleStream",
        pb.SampleStreamRequest(count=1001),
        INVALID,
        r"count: 1001 was sent, expected 1 to 1000",
    ),
    "chunks over the limit": (
        "SampleStream",
        pb.SampleStreamRequest(count=10, chunk_rows=33),
        INVALID,
        r"chunk_rows: 33 was sent",
    ),
    "negative offset": (
        "Sample",
        pb.SampleRequest(count=1, offset=-1),
        INVALID,
        r"offset: -1 was sent",
    ),
    "hot": (
        "Sample",
        pb.SampleRequest(count=1, temperature=10.5),
        INVALID,
        r"temperature: 10\.5 was sent, expected 0 to 10",
    ),
    "NaN temperature": (
        "Sample",
        pb.SampleRequest(count=1, temperature=float("nan")),
        INVALID,
        r"temperature: nan was sent",
    ),
    "unknown format": (
        "Sample",
        pb.SampleRequest(count=1, output_format=9),  # type: ignore[arg-type]
        INVALID,
        r"output_format: 9 was sent, expected one of IMAGE_FORMAT_FLOAT32",
    ),
    "no protobuf": (
        "Encode",
        b"\xff\xff\xff",
        INVALID,
        r"3 bytes were sent that are not a latentserve\.v1\.EncodeRequest",
    ),
    "no protobuf for a stream": (
        "SampleStream",
        b"\xff\xff\xff",
        INVALID,
        r"not a latentserve\.v1\.SampleStreamRequest",
    ),
}


def call(channel: grpc.Channel, method: str, request: Message | bytes, timeout_s: float) -> bytes:
    """Send raw bytes, as a faulty client might."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    if method.endswith("SampleStream"):
        return b"".join(channel.unary_stream(method)(data, timeout=timeout_s))
    reply: bytes = channel.unary_unary(method)(data, timeout=timeout_s)
    return reply


def refusal(
    channel: grpc.Channel, method: str, request: Message | bytes, timeout_s: float = TIMEOUT_S
) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request, timeout_s)
    return caught.value


def details(error: grpc.RpcError) -> dict[type[Message], Message]:
    """Return the messages in google.rpc.Status by type."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[type[Message], Message] = {}
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    ):
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found[kind] = message
    return found


def server_works(server: Server) -> bool:
    with server.generative() as stub:
        reply = stub.Sample(pb.SampleRequest(count=1, seed=1), timeout=TIMEOUT_S)
    return len(reply.images.tensor.data) == 64


@pytest.mark.parametrize("name", TABLE)
def test_invalid_input_is_reported_and_the_next_call_succeeds(server: Server, name: str) -> None:
    method, request, code, message = TABLE[name]
    with server.channel() as channel:
        error = refusal(channel, GENERATIVE + method, request)
    assert error.code() == code
    assert re.search(message, error.details()), error.details()
    assert details(error)[error_details_pb2.ErrorInfo].domain == "latentserve"  # type: ignore[attr-defined]
    assert server_works(server)


def test_field_violations_name_every_bad_file(server: Server) -> None:
    with server.channel() as channel:
        error = refusal(channel, GENERATIVE + "Encode", encode(of_files(b"a", b"bc")))
    bad: Any = details(error)[error_details_pb2.BadRequest]
    assert [violation.field for violation in bad.field_violations] == [
        "images.encoded.files[0]",
        "images.encoded.files[1]",
    ]


def test_not_found_lists_the_models(server: Server) -> None:
    with server.channel() as channel:
        error = refusal(
            channel, MODELS + "GetModel", models_pb.GetModelRequest(model=ref("nothing"))
        )
    info: Any = details(error)[error_details_pb2.ErrorInfo]
    assert info.reason == "MODEL_NOT_FOUND"
    assert info.metadata["models"] == (
        "tiny-autoencoder, tiny-denoising, tiny-gan, tiny-mixture, tiny-vae"
    )


def test_an_unsupported_operation_lists_the_supported_ones(server: Server) -> None:
    request = encode(of_tensor(ONE), model=ref("tiny-gan"))
    with server.channel() as channel:
        error = refusal(channel, GENERATIVE + "Encode", request)
    info: Any = details(error)[error_details_pb2.ErrorInfo]
    assert info.reason == "OPERATION_NOT_SUPPORTED"
    assert info.metadata["operations"] == "decode, sample"


def test_a_message_over_the_limit_is_refused_and_the_connection_stays_open(server: Server) -> None:
    request = encode(of_tensor((70_000, 1, 4, 4)))
    with server.channel() as channel:
        error = refusal(channel, GENERATIVE + "Encode", request)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in error.details()
        call(channel, GENERATIVE + "Sample", pb.SampleRequest(count=1), TIMEOUT_S)


def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    with server.channel() as channel:
        error = refusal(channel, GENERATIVE + "Dream", b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def slow(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose engine takes 0.5 s for a batch and whose queue holds 8 rows."""
    log_path = tmp_path_factory.mktemp("slow") / "log.txt"
    flags = ("--default-model", "tiny-vae", "--max-request-rows", "8", "--queue-rows", "8")
    with served(tiny_exports, log_path, *flags, delay_s=0.5) as running:
        yield running


def test_a_deadline_of_one_millisecond(slow: Server) -> None:
    with slow.channel() as channel:
        error = refusal(channel, GENERATIVE + "Sample", pb.SampleRequest(count=1), timeout_s=0.001)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server_works(slow)


def test_a_deadline_that_passes_in_the_queue_does_not_run(slow: Server) -> None:
    with slow.generative() as stub:
        running = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Sample(pb.SampleRequest(count=1), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        after = stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert running.result().timings.batch_rows == 1
    # The next batch does not contain the expired row.
    assert after.timings.batch_rows == 1


def test_a_full_queue_returns_a_retry_delay(slow: Server) -> None:
    with slow.generative() as stub:
        busy = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        time.sleep(0.1)  # the engine runs this request; the next ones are queued
        waiting = stub.Sample.future(pb.SampleRequest(count=8), timeout=TIMEOUT_S)
        time.sleep(0.05)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert len(busy.result().images.tensor.data) == 64
        assert len(waiting.result().images.tensor.data) == 8 * 64
    error = caught.value
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    found: Any = details(error)
    assert found[error_details_pb2.ErrorInfo].reason == "QUEUE_FULL"
    delay = found[error_details_pb2.RetryInfo].retry_delay
    delay_ms = delay.seconds * 1000 + delay.nanos // 1_000_000
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == str(delay_ms)
    assert delay_ms > 0


def test_a_poisoned_row_fails_alone_and_leaks_nothing(slow: Server) -> None:
    poison = of_tensor(ONE, data=values(0.5))
    good = of_tensor(ONE, data=values(0.75))
    with slow.generative() as stub:

        def begin(images: tensor_pb2.Images) -> Any:
            return stub.Reconstruct.future(pb.ReconstructRequest(images=images), timeout=TIMEOUT_S)

        begin(good)  # keeps the engine busy while the batch of four is queued
        time.sleep(0.1)
        calls = [begin(images) for images in (good, poison, good, good)]
        errors = [future.exception() for future in calls]
    assert [error is None for error in errors] == [True, False, True, True]
    error = errors[1]
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    info: Any = details(error)[error_details_pb2.ErrorInfo]
    request_id = info.metadata["request_id"]
    assert request_id in error.details()
    # The log has the cause with the same id.
    line = slow.wait_for_log(rf".*{request_id}.*").group()
    assert "secret detail of a failing engine" in line
    assert "Reconstruct INTERNAL model=" in line


@pytest.mark.parametrize("leaving", range(4))
def test_a_cancelled_caller_harms_no_neighbour(slow: Server, leaving: int) -> None:
    with slow.generative() as stub:
        busy = stub.Sample.future(pb.SampleRequest(count=1, seed=0), timeout=TIMEOUT_S)
        time.sleep(0.1)
        calls = [
            stub.Sample.future(pb.SampleRequest(count=1, seed=n), timeout=TIMEOUT_S)
            for n in range(4)
        ]
        time.sleep(0.05)
        calls[leaving].cancel()
        busy.result()
        replies = [future.result() for n, future in enumerate(calls) if n != leaving]
    assert [reply.seed for reply in replies] == [n for n in range(4) if n != leaving]
    assert {reply.timings.batch_rows for reply in replies} == {3}


CLIENT = """
import sys, grpc
from latentserve.v1 import generative_service_pb2 as pb, generative_service_pb2_grpc as rpc
stub = rpc.GenerativeServiceStub(grpc.insecure_channel(sys.argv[1]))
calls = [stub.Sample.future(pb.SampleRequest(count=1)) for _ in range(4)]
stream = stub.SampleStream(pb.SampleStreamRequest(count=1000, chunk_rows=1))
next(stream)
print("in the middle", flush=True)
[call.result() for call in calls]
for _ in stream: pass
"""


def test_a_killed_client_leaves_no_queued_requests(slow: Server) -> None:
    process = subprocess.Popen([sys.executable, "-c", CLIENT, slow.address], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().strip() == b"in the middle"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    time.sleep(1.0)  # until the running batch of the killed client is finished
    with slow.generative() as stub:
        reply = stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
    assert reply.timings.batch_rows == 1
    assert reply.timings.queue_ns < 400_000_000  # no request of the killed client runs before it
