"""Tests of limits of single models and of the errors of an overloaded server."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from served import Server, ref, served

TIMEOUT_S = 20.0


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    tiny_models.write_model(root, "tiny-gan", kind="gan")
    return root


def details(error: grpc.RpcError, kind: Any) -> Any:
    """Return the detail of one type from the status of a failed call."""
    found = []
    for packed in rpc_status.from_call(error).details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    (detail,) = found
    return detail


def test_a_model_has_separate_limits(exports: Path, tmp_path: Path) -> None:
    flags = (
        *("--max-batch-rows", "8", "--model-max-batch-rows", "tiny-vae=4,tiny-nobody=9"),
        *("--model-max-delay-ms", "tiny-vae=1"),
    )
    with served(exports, tmp_path / "log", *flags) as server:
        assert "settings name models that do not exist (yet): tiny-nobody" in server.log
        found = {}
        with server.models() as models, server.generative() as stub:
            for name in ("tiny-vae", "tiny-gan"):
                request = models_pb.GetModelRequest(model=ref(name))
                limits = models.GetModel(request, timeout=TIMEOUT_S).model.limits
                sampling = pb.SampleRequest(model=ref(name), count=7)
                timings = stub.Sample(sampling, timeout=TIMEOUT_S).timings
                found[name] = (limits.max_batch_rows, timings.batch_rows)
    assert found == {"tiny-vae": (4, 4), "tiny-gan": (8, 7)}


def test_an_overloaded_server_names_the_limit_and_refuses_late_requests(
    exports: Path, tmp_path: Path
) -> None:
    flags = (
        *("--max-batch-rows", "1", "--max-request-rows", "4"),
        *("--queue-rows", "8", "--total-queue-rows", "8"),
    )
    request = pb.SampleRequest(model=ref("tiny-vae"), count=1)
    with (
        served(exports, tmp_path / "log", *flags, delay_s=0.3) as server,
        server.generative() as stub,
    ):
        stub.Sample(request, timeout=TIMEOUT_S)  # the latency model learns that a batch takes 0.3 s
        ended: queue.Queue[Any] = queue.Queue()
        begun = [stub.Sample.future(request, timeout=TIMEOUT_S) for _ in range(20)]
        for call in begun:
            call.add_done_callback(ended.put)
        full = ended.get(timeout=TIMEOUT_S)
        while full.code() is grpc.StatusCode.OK:
            full = ended.get(timeout=TIMEOUT_S)
        assert full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # One request runs, six are queued, and two rows are reserved for the other model.
        assert "the queues of all models are full: 6 rows wait" in full.details()
        assert details(full, error_details_pb2.ErrorInfo).metadata["limit"] == "total_queue_rows"
        retry = details(full, error_details_pb2.RetryInfo).retry_delay
        trailers = dict(full.trailing_metadata())
        assert retry.ToMilliseconds() > 0
        assert int(trailers["grpc-retry-pushback-ms"]) == retry.ToMilliseconds()
        with pytest.raises(grpc.RpcError) as late:
            stub.Sample(request, timeout=0.3)  # the queued requests need 1.8 s
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "rows are queued and the expected wait is" in late.value.details()
        gan = pb.SampleRequest(model=ref("tiny-gan"), count=2)
        stub.Sample(gan, timeout=TIMEOUT_S)
        codes = [call.code() for call in begun]
        assert codes.count(grpc.StatusCode.OK) >= 6
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_stream_that_runs_waits_for_room_in_a_full_queue(exports: Path, tmp_path: Path) -> None:
    streams, chunks, rows = 8, 6, 4
    flags = ("--max-batch-rows", "4", "--max-request-rows", "4", "--queue-rows", "8")
    request = pb.SampleStreamRequest(
        model=ref("tiny-vae"), count=chunks * rows, chunk_rows=rows, seed=1
    )

    def run(server: Server) -> list[int]:
        """Return the offsets of the chunks; a stream is refused only before its first chunk."""
        with server.generative() as stub:
            while True:
                offsets = []
                try:
                    for chunk in stub.SampleStream(request, timeout=TIMEOUT_S):
                        offsets.append(chunk.offset)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or offsets:
                        raise
                else:
                    return offsets

    with (
        served(exports, tmp_path / "log", *flags, delay_s=0.02) as server,
        ThreadPoolExecutor(streams) as pool,
    ):
        found = list(pool.map(run, [server] * streams))
        assert found == [[rows * number for number in range(chunks)]] * streams
        assert server.stop() == 0
