"""Property tests: any bytes as a request give a reply or a CallError.

The requests are bytes for the services' public methods; `request_target` has the checks.
`pytest --hypothesis-profile=fuzz` tries 100 times as many examples. tests/fuzz uses a fuzzer.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.errors import CallError, InvalidRequest
from request_target import (
    MAX_REQUEST_ROWS,
    MAX_STREAM_ROWS,
    REQUESTS,
    RESPONSES,
    ZERO_COPY_METHODS,
    Target,
    jpeg_file,
    outcome,
    png_file,
    valid_requests,
)

VALID = [
    (method, message.SerializeToString())
    for method, messages in valid_requests().items()
    for message in messages
]
WITH_IMAGES = {
    "Encode": pb.EncodeRequest,
    "Reconstruct": pb.ReconstructRequest,
    "Denoise": pb.DenoiseRequest,
}

T = TypeVar("T")


def mostly(good: st.SearchStrategy[T], bad: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One in ten values is invalid, so that requests with several fields are often valid."""
    return st.integers(0, 9).flatmap(lambda number: bad if number == 9 else good)


methods = st.sampled_from(sorted(RESPONSES))
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([-(2**63), -1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
)
models = mostly(st.just("denoising"), st.sampled_from(["", "vae", "gan", "autoencoder", "nobody"]))
versions = mostly(st.integers(0, 1), int32)
formats = mostly(st.integers(0, 4), int32)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    made = Target(tmp_path_factory.mktemp("exports"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target that parses requests with the generated classes only."""
    made = Target(tmp_path_factory.mktemp("exports"), reference=True)
    yield made
    made.close()


@pytest.mark.parametrize(("method", "request_bytes"), VALID)
def test_the_uncorrupted_messages_are_valid(
    target: Target, method: str, request_bytes: bytes
) -> None:
    assert isinstance(target.call(method, request_bytes), list)


@given(method=methods, request_bytes=st.binary(max_size=200))
def test_arbitrary_bytes(target: Target, method: str, request_bytes: bytes) -> None:
    target.call(method, request_bytes)


@st.composite
def corrupted(draw: st.DrawFn, original: bytes) -> bytes:
    """Return a message with some bytes changed, removed, inserted or repeated."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        # Half of the changes are near the ends, where all fields except the data are.
        near = min(len(data), 48)
        ends = st.one_of(st.integers(0, near), st.integers(len(data) - near, len(data)))
        at = draw(st.one_of(ends, st.integers(0, len(data))))
        end = min(len(data), at + draw(st.integers(0, 12)))
        change = draw(st.sampled_from(["replace", "insert", "cut", "twice", "flip", "end"]))
        if change == "replace":
            data[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        elif change == "cut":
            del data[at:end]
        elif change == "twice":
            data[at:at] = data[at:end]
        elif change == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "end":
            del data[at:]
    return bytes(data)


@given(data=st.data(), valid=st.sampled_from(VALID))
def test_corrupted_messages(target: Target, data: st.DataObject, valid: tuple[str, bytes]) -> None:
    method, original = valid
    target.call(method, data.draw(corrupted(original)))


LARGE = [
    (method, data) for method, data in VALID if len(data) > 512 and method in ZERO_COPY_METHODS
]


@given(data=st.data(), valid=st.sampled_from(LARGE))
def test_zero_copy_parsing_matches_the_generated_classes(
    target: Target, plain: Target, data: st.DataObject, valid: tuple[str, bytes]
) -> None:
    method, original = valid
    target.call(method, original)  # caches the parsed request
    request = data.draw(corrupted(original))
    assert outcome(target.call(method, request)) == outcome(plain.call(method, request))
    target.call(method, original)
    assert outcome(target.call(method, request)) == outcome(plain.call(method, request))


@pytest.mark.parametrize("valid", LARGE, ids=lambda valid: valid[0])
def test_every_changed_last_byte_is_detected(
    target: Target, plain: Target, valid: tuple[str, bytes]
) -> None:
    """The last byte belongs to the seed or the format after the data, or to the data."""
    method, original = valid
    target.call(method, original)
    for last in range(256):
        request = original[:-1] + bytes([last])
        assert outcome(target.call(method, request)) == outcome(plain.call(method, request))


def test_large_requests_are_among_the_examples() -> None:
    assert {method for method, _ in LARGE} == set(ZERO_COPY_METHODS)


@given(valid=st.sampled_from(VALID), other=st.sampled_from(VALID))
def test_messages_of_other_methods_and_concatenated_messages(
    target: Target, valid: tuple[str, bytes], other: tuple[str, bytes]
) -> None:
    """Protobuf merges repeated fields: the last value is used, lists are concatenated."""
    target.call(valid[0], other[1])
    target.call(valid[0], valid[1] + other[1])


@st.composite
def tensors(draw: st.DrawFn, row: tuple[int, ...]) -> tensor_pb2.Tensor:
    """Return a valid tensor, or one with an error."""
    data_type = draw(mostly(st.integers(1, 3), int32))
    rows = draw(mostly(st.integers(1, MAX_REQUEST_ROWS), st.integers(-1, MAX_REQUEST_ROWS + 1)))
    wrong = st.one_of(
        st.lists(int64, max_size=6), st.permutations([rows, *row]), st.just([rows, *row[:-1], 9])
    )
    shape = draw(mostly(st.just([rows, *row]), wrong.map(list)))
    size = {1: 4, 2: 2, 3: 1}.get(data_type, 4)
    values = math.prod(shape) if all(0 <= n < 1000 for n in shape) else 0
    length = min(values * size, 20_000) + draw(mostly(st.just(0), st.sampled_from([1, -1, size])))
    value = draw(mostly(st.floats(0, 1, width=16), st.floats(width=16)))
    one = struct.pack("<f" if size == 4 else "<e", value)[:size]
    data = (one * (max(length, 0) // size + 1))[: max(length, 0)]
    if draw(st.booleans()):  # one different value at a random position
        at = draw(st.integers(0, len(data) // size)) * size
        data = data[:at] + draw(st.binary(min_size=size, max_size=size)) + data[at + size :]
    return tensor_pb2.Tensor(
        data_type=data_type,  # type: ignore[arg-type]
        shape=shape,
        data=data,
    )


@given(
    method=st.sampled_from(sorted(WITH_IMAGES)),
    tensor=tensors((1, tiny_models.SIZE, tiny_models.SIZE)),
    name=models,
    version=versions,
    output_format=formats,
    seed=st.integers(0, 2**64 - 1),
)
def test_arbitrary_image_tensors(
    target: Target,
    method: str,
    tensor: tensor_pb2.Tensor,
    name: str,
    version: int,
    output_format: int,
    seed: int,
) -> None:
    extra: dict[str, Any] = (
        {"seed": seed} if method == "Encode" else {"output_format": output_format}
    )
    request = WITH_IMAGES[method](
        model=tensor_pb2.ModelRef(name=name, version=version),
        images=tensor_pb2.Images(tensor=tensor),
        **extra,
    )
    replies = target.call(method, request.SerializeToString())
    if isinstance(replies, list):
        assert np.isfinite(np.frombuffer(tensor.data, kind_of(tensor)).astype(float)).all()
        assert list(tensor.shape[1:]) == [1, tiny_models.SIZE, tiny_models.SIZE]
        assert method == "Encode" or output_format in tensor_pb2.ImageFormat.values()


def kind_of(tensor: tensor_pb2.Tensor) -> str:
    return {1: "<f4", 2: "<f2", 3: "u1"}[tensor.data_type]


@given(
    tensor=tensors((tiny_models.DIM,)),
    name=models,
    output_format=formats,
)
def test_arbitrary_latents(
    target: Target, tensor: tensor_pb2.Tensor, name: str, output_format: int
) -> None:
    request = pb.DecodeRequest(
        model=tensor_pb2.ModelRef(name=name),
        latents=tensor,
        output_format=output_format,  # type: ignore[arg-type]
    )
    replies = target.call("Decode", request.SerializeToString())
    if isinstance(replies, list):
        assert tensor.data_type in (1, 2)
        assert np.isfinite(np.frombuffer(tensor.data, kind_of(tensor))).all()


@given(
    method=st.sampled_from(["Sample", "SampleStream"]),
    count=mostly(st.integers(1, MAX_REQUEST_ROWS), int64),
    offset=mostly(st.integers(0, 2**62), int64),
    seed=st.integers(0, 2**64 - 1),
    temperature=mostly(st.floats(0, 10, width=32), st.floats(width=32)),
    chunk_rows=mostly(st.integers(0, MAX_REQUEST_ROWS), int32),
)
@example("Sample", 1, -1, 0, 1.0, 0)
@example("SampleStream", 1, 2**62 + 1, 0, 1.0, 0)
def test_arbitrary_samples(
    target: Target,
    method: str,
    count: int,
    offset: int,
    seed: int,
    temperature: float,
    chunk_rows: int,
) -> None:
    if method == "Sample":
        count = (count + 2**31) % 2**32 - 2**31
    fields = {"count": count, "offset": offset, "seed": seed, "temperature": temperature}
    if method == "SampleStream":
        fields["chunk_rows"] = chunk_rows
    request = REQUESTS[method](**fields)
    replies = target.call(method, request.SerializeToString())
    if isinstance(replies, list):
        assert 1 <= count <= (MAX_REQUEST_ROWS if method == "Sample" else MAX_STREAM_ROWS)
        assert 0 <= offset <= 2**62
        assert 0 <= temperature <= 10
        assert [reply.seed for reply in replies] == [seed] * len(replies)


# --- image files ------------------------------------------------------------------------------


def sent(target: Target, *files: bytes) -> list[Any] | CallError:
    images = tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))
    return target.call("Encode", pb.EncodeRequest(images=images).SerializeToString())


@given(files=st.lists(st.binary(max_size=100), max_size=MAX_REQUEST_ROWS + 1))
def test_arbitrary_files(target: Target, files: list[bytes]) -> None:
    assert isinstance(sent(target, *files), InvalidRequest)


ORIGINALS = [
    png_file(),
    png_file(optimize=True),
    jpeg_file(),
    jpeg_file(progressive=True),
    jpeg_file(exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", dpi=(72, 72)),
]


@given(data=st.data(), original=st.sampled_from(ORIGINALS))
def test_corrupted_files(target: Target, data: st.DataObject, original: bytes) -> None:
    sent(target, data.draw(corrupted(original)), png_file())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(*fields: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


size = mostly(st.just(4), st.sampled_from([0, 1, 65_536, 2**31, 2**32 - 1]))
depth = mostly(st.just(8), st.sampled_from([1, 2, 4, 16, 3]))
headers = st.builds(
    header,
    *(size, size, depth, st.sampled_from([0, 2, 3, 4, 6, 1])),
    *(mostly(st.just(0), st.just(1)), mostly(st.just(0), st.just(1)), st.sampled_from([0, 1, 2])),
)
bodies = st.one_of(st.binary(max_size=120), st.just(bytes(500))).map(
    lambda raw: chunk(b"IDAT", zlib.compress(raw))
)
others = st.builds(
    chunk,
    st.sampled_from(
        b"PLTE tRNS tEXt zTXt iTXt iCCP eXIf acTL fcTL fdAT gAMA pHYs sBIT IDAT IEND IHDR".split()
    ),
    st.binary(max_size=40),
)


some = st.lists(st.one_of(others, bodies), max_size=3)


@given(first=headers, before=some, body=bodies, behind=some)
def test_png_files_with_valid_checksums(
    target: Target, first: bytes, before: list[bytes], body: bytes, behind: list[bytes]
) -> None:
    chunks = [first, *before, body, *behind, chunk(b"IEND", b"")]
    sent(target, b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
