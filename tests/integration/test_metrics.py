"""What Prometheus finds, against what was done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from scraped import scrape, value
from served import Server, launched, ref, served

TIMEOUT_S = 10.0
GENERATIVE = {"grpc_service": "latentserve.v1.GenerativeService"}
VAE = {"model": "tiny-vae", "version": "1"}


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    tiny_models.write_model(root, "tiny-gan", kind="gan")
    return root


@pytest.fixture
def server(exports: Path, tmp_path: Path) -> Iterator[Server]:
    flags = ("--default-model", "tiny-vae", "--metrics-listen", "127.0.0.1:0")
    with served(exports, tmp_path / "log", *flags) as running:
        yield running


def test_calls_are_counted_by_method_and_code(server: Server) -> None:
    with server.generative() as stub:
        for _ in range(3):
            stub.Sample(pb.SampleRequest(count=4), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError):
            stub.Sample(pb.SampleRequest(count=0), timeout=TIMEOUT_S)
        list(stub.SampleStream(pb.SampleStreamRequest(count=9, chunk_rows=4), timeout=TIMEOUT_S))
    sample = {**GENERATIVE, "grpc_method": "Sample", "grpc_type": "unary"}
    stream = {**GENERATIVE, "grpc_method": "SampleStream", "grpc_type": "server_stream"}
    assert value(server, "grpc_server_started_total", **sample) == 4
    assert value(server, "grpc_server_handled_total", **sample, grpc_code="OK") == 3
    assert value(server, "grpc_server_handled_total", **sample, grpc_code="INVALID_ARGUMENT") == 1
    assert value(server, "grpc_server_handled_total", **stream, grpc_code="OK") == 1
    assert value(server, "grpc_server_handling_seconds_count", **sample) == 4
    # Three calls of four rows, then chunks of 4, 4 and 1.
    operation = {**VAE, "operation": "sample"}
    assert value(server, "latentserve_batch_rows_sum", **operation) == 3 * 4 + 9
    assert value(server, "latentserve_batch_rows_count", **operation) == 6
    assert value(server, "latentserve_queue_seconds_count", **operation) == 6
    assert value(server, "latentserve_engine_seconds_sum", **operation) > 0


def test_models_are_described_and_their_series_go_with_them(server: Server, exports: Path) -> None:
    info = {"model": "tiny-gan", "kind": "gan", "provider": "CPUExecutionProvider"}
    assert value(server, "latentserve_model_info", **info) == 1
    assert value(server, "latentserve_queue_rows", model="tiny-gan") == 0
    with server.generative() as stub:
        stub.Sample(pb.SampleRequest(model=ref("tiny-gan"), count=1), timeout=TIMEOUT_S)
    assert value(server, "latentserve_batch_rows_count", model="tiny-gan") == 1
    shutil.rmtree(exports / "tiny-gan")
    (exports / "tiny-bad" / "1").mkdir(parents=True)
    with server.models() as stub:
        stub.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
    names = {
        found["model"]
        for samples in scrape(server).values()
        for found, _ in samples
        if "model" in found
    }
    assert names == {"tiny-vae", "tiny-bad"}
    assert value(server, "latentserve_model_state", model="tiny-bad", state="refused") == 1
    for action in ("removed", "refused", "unchanged"):
        assert value(server, "latentserve_reload_outcomes_total", action=action) == 1


def test_refused_and_dropped_requests_say_why(exports: Path, tmp_path: Path) -> None:
    flags = (
        *("--default-model", "tiny-vae", "--metrics-listen", "127.0.0.1:0"),
        *("--max-request-rows", "4", "--queue-rows", "4"),
    )
    with (
        served(exports, tmp_path / "log", *flags, delay_s=0.6) as server,
        server.generative() as stub,
    ):
        busy = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        time.sleep(0.2)
        left = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        late = stub.Sample.future(pb.SampleRequest(count=1), timeout=0.1)
        waiting = stub.Sample.future(pb.SampleRequest(count=2), timeout=TIMEOUT_S)
        time.sleep(0.05)
        with pytest.raises(grpc.RpcError):
            stub.Sample(pb.SampleRequest(count=4), timeout=TIMEOUT_S)
        left.cancel()
        assert late.exception() is not None
        busy.result()
        waiting.result()
        assert value(server, "latentserve_rejected_total", **VAE, reason="queue_full") == 1
        dropped = {**VAE, "operation": "sample"}
        assert value(server, "latentserve_dropped_total", **dropped) == 2
        codes = {
            found["grpc_code"]: number
            for found, number in scrape(server)["grpc_server_handled_total"]
            if found["grpc_method"] == "Sample"
        }
    assert codes == {
        "OK": 2,
        "CANCELLED": 1,
        "DEADLINE_EXCEEDED": 1,
        "RESOURCE_EXHAUSTED": 1,
    }


def test_a_metrics_port_that_is_taken_ends_the_process(server: Server, tmp_path: Path) -> None:
    flags = ("--metrics-listen", server.address)
    with launched(tmp_path / "exports", tmp_path / "log2", *flags) as second:
        assert second.process.wait(TIMEOUT_S) == 2
        assert f"--metrics-listen {server.address} cannot be used" in second.log
        assert "Traceback" not in second.log
