"""Tests of the reply serialiser against the generated message classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.codec.reply_writer import (
    Piece,
    floats_field,
    images_field,
    message_field,
    tensor_field,
)


def joined(*pieces: Piece) -> bytes:
    parts: list[Any] = list(pieces)
    return b"".join(parts)


@pytest.mark.parametrize("rows", [0, 1, 3, 200])
@pytest.mark.parametrize(
    ("data_type", "dtype"),
    [
        (tensor_pb2.DATA_TYPE_FLOAT32, "<f4"),
        (tensor_pb2.DATA_TYPE_FLOAT16, "<f2"),
        (tensor_pb2.DATA_TYPE_UINT8, "u1"),
    ],
)
def test_a_reply_is_byte_for_byte_what_the_generated_class_writes(
    rows: int, data_type: Any, dtype: str
) -> None:
    images = np.arange(rows * 12).reshape(rows, 1, 3, 4).astype(dtype)
    errors = np.linspace(0, 1, rows, dtype=np.float32)
    served_by = tensor_pb2.ServedBy(name="m", version=3, digest="d" * 64, provider="p")
    tensor = tensor_pb2.Tensor(data_type=data_type, shape=images.shape, data=images.tobytes())
    expected = pb.ReconstructResponse(
        images=tensor_pb2.Images(tensor=tensor), squared_error=errors, served_by=served_by
    )
    if not rows:  # neither an empty list nor an empty `data` is written
        expected.ClearField("squared_error")
    sent = joined(
        *images_field(1, data_type, images),
        *floats_field(2, errors),
        message_field(3, served_by.SerializeToString()),
    )
    assert pb.ReconstructResponse.FromString(sent) == expected
    if rows:
        assert sent == expected.SerializeToString(deterministic=True)


def test_a_tensor_is_byte_for_byte_what_the_generated_class_writes() -> None:
    latents = np.random.default_rng(0).standard_normal((5, 7), dtype=np.float32)
    data_type = tensor_pb2.DATA_TYPE_FLOAT32
    tensor = tensor_pb2.Tensor(data_type=data_type, shape=(5, 7), data=latents.tobytes())
    expected = pb.EncodeResponse(log_variance=tensor).SerializeToString()
    assert joined(*tensor_field(2, data_type, latents)) == expected
