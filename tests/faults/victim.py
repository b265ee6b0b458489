"""Client that a test kills or stops: `victim.py ADDRESS TASK`; it prints when it has started."""

from __future__ import annotations

import sys
import time

import grpc

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import generative_service_pb2_grpc

ROWS = 1_000_000
CHUNK_ROWS = 1000


def stream(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Read one chunk after the other, for longer than the test runs."""
    request = pb.SampleStreamRequest(count=ROWS, chunk_rows=10, seed=1)
    for _ in stub.SampleStream(request):
        print("started", flush=True)


def unread(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Read only the first chunk of a stream of 64 MB."""
    replies = stub.SampleStream(pb.SampleStreamRequest(count=ROWS, chunk_rows=CHUNK_ROWS, seed=1))
    next(replies)
    print("started", flush=True)
    time.sleep(600)


def unary(stub: generative_service_pb2_grpc.GenerativeServiceStub) -> None:
    """Keep calls in flight at all times."""
    in_flight = [stub.Sample.future(pb.SampleRequest(count=5)) for _ in range(8)]
    while True:
        print("started", flush=True)
        in_flight.pop(0).result()
        in_flight.append(stub.Sample.future(pb.SampleRequest(count=5)))


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        {"stream": stream, "unread": unread, "unary": unary}[sys.argv[2]](
            generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]
        )
