"""Tests of the request parser and its cache."""

from __future__ import annotations

import numpy as np
import pytest

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.codec import request_parser
from latentserve_server.codec.request_parser import ParsedRequest, RequestParser
from latentserve_server.errors import InvalidRequest


def request(
    model: str = "m", *, rows: int = 1, value: float = 0.5, output_format: int = 0
) -> bytes:
    data = np.full((rows, 1, 28, 28), value, dtype=np.float32)
    tensor = tensor_pb2.Tensor(data_type=1, shape=data.shape, data=data.tobytes())
    message = pb.ReconstructRequest(
        model=tensor_pb2.ModelRef(name=model),
        images=tensor_pb2.Images(tensor=tensor),
        output_format=output_format,  # type: ignore[arg-type]
    )
    return message.SerializeToString()


def numbers(form: ParsedRequest, sent: bytes) -> np.ndarray:
    return np.frombuffer(sent, np.float32, form.length // 4, form.start)


@pytest.fixture
def parser() -> RequestParser:
    return RequestParser(pb.ReconstructRequest, (2, 1, 3))


def test_a_cached_request_is_not_parsed_again(parser: RequestParser) -> None:
    first, second = request(value=0.25), request(value=0.75)
    form = parser.read(first)
    assert parser.read(second) is form
    assert set(numbers(form, first)) == {0.25}
    assert set(numbers(form, second)) == {0.75}


def test_another_model_name_of_the_same_length_is_parsed(parser: RequestParser) -> None:
    assert parser.read(request("a")).name == "a"
    assert parser.read(request("b")).name == "b"
    assert parser.read(request("a")).name == "a"


def test_bytes_after_the_data_are_compared_too(parser: RequestParser) -> None:
    for output_format in (1, 2, 3, 1):
        assert parser.read(request(output_format=output_format)).output_format == output_format


def test_another_number_of_rows_is_parsed(parser: RequestParser) -> None:
    for rows in (1, 2, 1, 3):
        form = parser.read(request(rows=rows))
        assert list(form.message.images.tensor.shape) == [rows, 1, 28, 28]
        assert form.length == rows * 784 * 4


def test_small_requests_are_parsed_by_the_generated_class(parser: RequestParser) -> None:
    sent = pb.ReconstructRequest(model=tensor_pb2.ModelRef(name="m")).SerializeToString()
    form = parser.read(sent)
    assert form.start == -1
    assert form.name == "m"
    assert parser.read(sent) is not form


def test_files_are_parsed_by_the_generated_class(parser: RequestParser) -> None:
    files = tensor_pb2.EncodedImages(files=[b"p" * 2000])
    sent = pb.ReconstructRequest(images=tensor_pb2.Images(encoded=files)).SerializeToString()
    form = parser.read(sent)
    assert form.start == -1
    assert form.message.images.encoded.files[0] == b"p" * 2000


@pytest.mark.parametrize(
    "sent", [b"\xff" * 20, b"\xff" * 2000, request()[:-1], request() + b"\x0a"]
)
def test_malformed_requests_are_refused(parser: RequestParser, sent: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"that are not a latentserve\.v1\.ReconstructRequest"):
        parser.read(sent)


def test_a_name_that_is_not_utf8_is_refused(parser: RequestParser) -> None:
    sent = request("mm").replace(b"mm", b"\xff\xfe", 1)
    with pytest.raises(InvalidRequest):
        parser.read(sent)


def test_the_cache_is_bounded(parser: RequestParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_parser, "_MAX_LENGTHS", 3)
    for rows in range(1, 9):
        for model in "abcdefgh":
            assert parser.read(request(model, rows=rows)).name == model
    assert len(parser._cache) == 3
    assert all(len(entries) <= request_parser._MAX_ENTRIES for entries in parser._cache.values())
    long_name = request("m" * 600)
    assert parser.read(long_name).name == "m" * 600
    assert len(long_name) not in parser._cache
