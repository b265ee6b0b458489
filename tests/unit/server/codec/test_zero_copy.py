"""Tests of the zero-copy field locator against the generated message classes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.codec.zero_copy import locate, varint

PATH = (2, 1, 3)
DATA = bytes(range(256)) * 3


def request(data: bytes = DATA, **fields: Any) -> pb.ReconstructRequest:
    tensor = tensor_pb2.Tensor(data_type=1, shape=(1, 1, 28, 28), data=data)
    images = tensor_pb2.Images(tensor=tensor)
    return pb.ReconstructRequest(
        model=tensor_pb2.ModelRef(name="mnist-ae", version=2), images=images, **fields
    )


def field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(payload)) + payload


def check_against_the_reference(message: bytes) -> bool:
    """Return whether the field was found, after a comparison with the generated class."""
    found = locate(message, PATH)
    if found is None:
        return False
    try:
        rest = pb.ReconstructRequest.FromString(found.rest)
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.ReconstructRequest.FromString(message)
        return True
    whole = pb.ReconstructRequest.FromString(message)
    if whole.images.WhichOneof("form") == "tensor":
        assert message[found.start : found.stop] == whole.images.tensor.data
        assert rest.images.WhichOneof("form") == "tensor"
        assert not rest.images.tensor.data
        rest.images.tensor.data = whole.images.tensor.data
    assert rest == whole
    assert rest.SerializeToString() == whole.SerializeToString()  # unknown fields too
    return True


def test_the_data_of_an_ordinary_request_are_found() -> None:
    message = request(output_format=tensor_pb2.IMAGE_FORMAT_UINT8).SerializeToString()
    found = locate(message, PATH)
    assert found is not None
    assert message[found.start : found.stop] == DATA
    assert len(found.rest) < 60
    assert check_against_the_reference(message)


def test_fields_in_any_order_and_unknown_ones_are_kept() -> None:
    tensor = field(3, DATA) + field(9, b"unknown") + b"\x08\x01" + b"\x10\x01\x10\x05"
    images = b"\xf8\x06\x07" + field(1, tensor) + field(15, b"more")
    message = (
        b"\x18\x03" + field(2, images) + field(1, b"\x0a\x01m") + b"\x2d1234" + b"\x31" + DATA[:8]
    )
    assert check_against_the_reference(message)


@pytest.mark.parametrize(
    "message",
    [
        field(2, field(1, field(3, DATA))) * 2,
        field(2, field(1, field(3, DATA)) * 2),
        field(2, field(1, field(3, DATA) * 2)),
        field(2, field(2, b"")),
        field(2, b""),
        b"",
        field(1, b"\x0a\x01m"),
        b"\x92\x80\x00" + field(2, field(1, field(3, DATA)))[1:],  # an overlong tag
        b"\x12\xff\xff\xff\xff\x0f",  # a length beyond the end
        field(2, field(1, field(3, DATA)))[:-1],
        b"\x13\x14" + field(2, field(1, field(3, DATA))),  # a group
        b"\x10\x01" + field(2, field(1, field(3, DATA))),  # the field as a number
        field(2, field(1, field(3, DATA))) + b"\x80",  # a truncated tag
        b"\xff" * 11,
    ],
)
def test_unusual_messages_are_left_to_the_generated_classes(message: bytes) -> None:
    assert locate(message, PATH) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"\x0a\x03\x0a\x01m", b"\x18\x02", b"\x2a\x01x", b"\x35abcd", b"I"]),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.binary(max_size=300),
    st.binary(max_size=6),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_the_located_field_matches_the_generated_classes(
    others: list[tuple[bytes, bool]], data: bytes, noise: bytes
) -> None:
    images = field(2, field(1, b"\x08\x01" + field(3, data) + noise))
    before = b"".join(other for other, first in others if first)
    after = b"".join(other for other, first in others if not first)
    check_against_the_reference(before + images + after)


@given(st.data())
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_corrupted_request_is_read_like_the_generated_class_does(data: st.DataObject) -> None:
    message = bytearray(request(DATA[:40]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position] = data.draw(st.integers(0, 255))
    check_against_the_reference(bytes(message))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**21, 2**35])
def test_varints_are_those_of_protobuf(number: int) -> None:
    tagged = tensor_pb2.Timings(queue_ns=number).SerializeToString()
    assert tagged[1:] == (varint(number) if number else b"")
