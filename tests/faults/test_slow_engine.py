"""With a slow engine, calls that cannot be served in time fail with a retry delay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_client import Client, QueueFull
from scraped import value
from served import served
from vitals import eventually

TIMEOUT_S = 30.0
DELAY_S = 0.15


def pushback_ms(error: Any) -> int:
    return int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])


def retry_delay_ms(error: Any) -> float:
    info = error_details_pb2.RetryInfo()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(info):
            return float(info.retry_delay.ToMilliseconds())
    raise AssertionError("no RetryInfo")


def test_a_full_queue_says_when_to_return_and_calls_out_of_time_never_run(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--queue-rows", "8", "--max-request-rows", "8", "--max-batch-rows", "4")
    flags += ("--metrics-listen", "127.0.0.1:0", "--watchdog-s", "1", "--watchdog-exit", "yes")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=DELAY_S) as server,
        server.generative() as stub,
    ):
        stub.Sample(
            pb.SampleRequest(count=4, seed=1), timeout=TIMEOUT_S
        )  # the server has now measured its service rate
        request = pb.SampleRequest(count=4, seed=1)
        calls = [stub.Sample.future(request, timeout=TIMEOUT_S) for _ in range(12)]
        failures = [error for call in calls if (error := call.exception()) is not None]
        replies = [call.result() for call in calls if call.exception() is None]
        assert {error.code() for error in failures} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(replies) >= 2
        assert len({reply.images.tensor.data for reply in replies}) == 1
        for error in failures:
            # 8 rows at 4 rows per 0.15 s; at least 10 ms, at most 5 s.
            assert 10 <= pushback_ms(error) <= 5000
            assert abs(pushback_ms(error) - retry_delay_ms(error)) <= 1
        refused = value(server, "latentserve_rejected_total", reason="queue_full")
        assert refused == len(failures) > 0

        ran = value(server, "latentserve_batch_rows_sum")
        first = stub.Sample.future(request, timeout=TIMEOUT_S)
        late = [stub.Sample.future(request, timeout=DELAY_S / 3) for _ in range(2)]
        assert {call.exception().code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        first.result()
        eventually(lambda: value(server, "latentserve_queue_rows") == 0)
        assert (
            value(server, "latentserve_batch_rows_sum") - ran <= 8
        )  # at most one of the late calls

        with Client(server.address, timeout_s=TIMEOUT_S) as client:
            try:
                assert client.sample(8, seed=1).images.shape[0] == 8  # it retries after the delay
            except QueueFull as error:
                raise AssertionError("four attempts were not enough on an idle server") from error
        assert "is stuck" not in server.log
        assert server.stop() == 0
