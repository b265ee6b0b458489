import pytest

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_client.load.measure.reply_timings import NO_TIMINGS, read_timings

TIMINGS = tensor_pb2.Timings(queue_ns=300, compute_ns=2**40, batch_rows=64)
IMAGES = tensor_pb2.Images(
    tensor=tensor_pb2.Tensor(data_type=1, shape=[1, 1, 9, 9], data=b"x" * 324)
)


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (pb.EncodeResponse(latents=IMAGES.tensor, seed=2**64 - 1, timings=TIMINGS), 5),
        (pb.DecodeResponse(images=IMAGES, timings=TIMINGS), 3),
        (pb.ReconstructResponse(images=IMAGES, squared_error=[1.5] * 40, timings=TIMINGS), 4),
        (pb.DenoiseResponse(images=IMAGES, timings=TIMINGS), 3),
        (pb.SampleResponse(images=IMAGES, seed=7, timings=TIMINGS), 5),
        (pb.SampleStreamResponse(images=IMAGES, seed=7, offset=9, timings=TIMINGS), 6),
    ],
)
def test_finds_the_timings_of_every_reply(reply, field):
    assert reply.DESCRIPTOR.fields_by_name["timings"].number == field
    assert read_timings(reply.SerializeToString(), field) == (300, 2**40, 64)


def test_zero_fields_are_absent_from_the_message():
    reply = pb.DecodeResponse(timings=tensor_pb2.Timings(compute_ns=5))
    assert read_timings(reply.SerializeToString(), 3) == (0, 5, 0)
    assert read_timings(pb.DecodeResponse(timings=tensor_pb2.Timings()).SerializeToString(), 3) == (
        0,
        0,
        0,
    )


def test_skips_fields_of_every_wire_type():
    fixed = b"\x4d" + b"\0" * 4 + b"\x51" + b"\0" * 8  # fields 9 and 10, of 4 and 8 bytes
    reply = fixed + pb.DecodeResponse(timings=TIMINGS).SerializeToString()
    assert read_timings(reply, 3) == (300, 2**40, 64)


@pytest.mark.parametrize("reply", [b"", b"\xff" * 20, b"\x1a", b"\x1a\x05ab", b"\x0b\x0c", b"\x80"])
def test_malformed_replies_have_no_timings(reply):
    assert read_timings(reply, 3) == NO_TIMINGS


def test_truncated_replies_raise_no_error():
    whole = pb.SampleResponse(images=IMAGES, seed=7, timings=TIMINGS).SerializeToString()
    for end in range(len(whole)):
        found = read_timings(whole[:end], 5)
        assert found == NO_TIMINGS or end > len(whole) - 14
