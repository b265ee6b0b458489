"""A client that will be killed or frozen: `victim.py ADDRESS TASK`; it says when it is at it."""

from __future__ import annotations

import sys
import time

import grpc

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import generative_service_pb2_grpc

ROWS = 1_000_000
CHUNK_ROWS = 1000


def stream(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Read one chunk after the other, for longer than it will live."""
    request = pb.SampleStreamRequest(count=ROWS, chunk_rows=10, seed=1)
    for _ in stub.SampleStream(request):
        print("at it", flush=True)


def unread(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Take the first chunk of a stream of 64 MB, and no other."""
    replies = stub.SampleStream(pb.SampleStreamRequest(count=ROWS, chunk_rows=CHUNK_ROWS, seed=1))
    next(replies)
    print("at it", flush=True)
    time.sleep(600)


def unary(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Have calls in flight at all times."""
    waiting = [stub.Sample.future(pb.SampleRequest(count=5)) for _ in range(8)]
    while True:
        print("at it", flush=True)
        waiting.pop(0).result()
        waiting.append(stub.Sample.future(pb.SampleRequest(count=5)))


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        {"stream": stream, "unread": unread, "unary": unary}[sys.argv[2]](
            generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]
        )
