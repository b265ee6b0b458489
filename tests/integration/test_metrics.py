"""Tests of a running server's Prometheus metrics against the calls made."""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from scraped import metrics_url, scrape, settled, value
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
    handled = "grpc_server_handled_total"
    assert value(server, "grpc_server_started_total", **sample) == 4
    assert settled(server, 3, handled, **sample, grpc_code="OK")
    assert settled(server, 1, handled, **sample, grpc_code="INVALID_ARGUMENT")
    assert settled(server, 1, handled, **stream, grpc_code="OK")
    assert value(server, "grpc_server_handling_seconds_count", **sample) == 4
    # Three calls of four rows, then chunks of 4, 4 and 1.
    operation = {**VAE, "operation": "sample"}
    assert value(server, "latentserve_batch_rows_sum", **operation) == 3 * 4 + 9
    assert value(server, "latentserve_batch_rows_count", **operation) == 6
    assert value(server, "latentserve_queue_seconds_count", **operation) == 6
    assert value(server, "latentserve_engine_seconds_sum", **operation) > 0


def test_every_rpc_has_its_series_before_the_first_call(server: Server) -> None:
    methods = {
        (found["grpc_service"].rpartition(".")[2], found["grpc_method"], found["grpc_type"]): number
        for found, number in scrape(server)["grpc_server_handled_total"]
    }
    assert methods == {
        **{
            ("GenerativeService", name, "unary"): 0
            for name in ("Encode", "Decode", "Reconstruct", "Denoise", "Sample")
        },
        ("GenerativeService", "SampleStream", "server_stream"): 0,
        **{
            ("ModelService", name, "unary"): 0
            for name in ("ListModels", "GetModel", "ReloadModels")
        },
    }


def test_messages_of_calls_and_streams_are_counted(server: Server) -> None:
    with server.generative() as stub:
        stub.Sample(pb.SampleRequest(count=4), timeout=TIMEOUT_S)
        list(stub.SampleStream(pb.SampleStreamRequest(count=9, chunk_rows=4), timeout=TIMEOUT_S))
        with pytest.raises(grpc.RpcError):
            list(stub.SampleStream(pb.SampleStreamRequest(count=0), timeout=TIMEOUT_S))
    for method, received, sent in (("Sample", 1, 1), ("SampleStream", 2, 3)):
        labels = {**GENERATIVE, "grpc_method": method}
        assert value(server, "grpc_server_msg_received_total", **labels) == received
        assert settled(server, sent, "grpc_server_msg_sent_total", **labels)


def series(server: Server) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (name, frozenset(found.items()))
        for name, samples in scrape(server).items()
        for found, _ in samples
    }


def test_unknown_names_in_requests_create_no_series(server: Server) -> None:
    with server.generative() as stub, pytest.raises(grpc.RpcError):
        stub.Sample(pb.SampleRequest(model=ref("nothing"), count=1), timeout=TIMEOUT_S)
    failed = {"grpc_method": "Sample", "grpc_code": "NOT_FOUND"}
    assert settled(server, 1, "grpc_server_handled_total", **failed)
    before = series(server)
    with server.channel() as channel, server.generative() as stub:
        for number in range(20):
            for path in (
                f"/made.up.Service{number}/Call",
                f"/latentserve.v1.GenerativeService/Call{number}",
                f"/latentserve.v1.ModelService/{number}",
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(b"", timeout=TIMEOUT_S)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            for model in (ref(f"made-up-{number}"), ref("tiny-vae", 100 + number)):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Sample(pb.SampleRequest(model=model, count=1), timeout=TIMEOUT_S)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert settled(server, 41, "grpc_server_handled_total", **failed)
    assert series(server) == before


def test_a_model_has_one_series_of_queued_rows_for_each_operation(server: Server) -> None:
    waiting = scrape(server)["latentserve_queue_rows"]
    found = {(labels["model"], labels["operation"]) for labels, _ in waiting}
    assert found == {
        *(("tiny-vae", name) for name in ("encode", "decode", "reconstruct", "sample")),
        *(("tiny-gan", name) for name in ("decode", "sample")),
    }


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "two"])
def test_scrapers_get_the_requested_format(
    exports: Path, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    flags = ("--metrics-listen", "127.0.0.1:0", *workers)
    with served(exports, tmp_path / "log", *flags) as server:
        with server.generative() as stub:
            sample = pb.SampleRequest(model=ref("tiny-vae"), count=1)
            stub.Sample(sample, timeout=TIMEOUT_S)
        url = metrics_url(server)
        for accept, content_type, parse in (
            ("", "text/plain; version=0.0.4", parse_text),
            ("text/plain;version=0.0.4", "text/plain; version=0.0.4", parse_text),
            (
                "application/openmetrics-text; version=1.0.0",
                "application/openmetrics-text; version=1.0.0",
                parse_open,
            ),
        ):
            headers = {"Accept": accept} if accept else {}
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - own server
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
                assert reply.headers["Content-Type"].startswith(content_type)
                families = {family.name: family for family in parse(reply.read().decode())}
            assert families["latentserve_batch_rows"].type == "histogram"
            assert families["latentserve_build_info"].samples[0].labels["version"]
            assert families["process_start_time_seconds"].samples[0].value > 1.7e9


def test_models_are_described_and_their_series_are_removed_with_them(
    server: Server, exports: Path
) -> None:
    info = {"model": "tiny-gan", "kind": "gan", "provider": "CPUExecutionProvider"}
    assert value(server, "latentserve_model_info", **info) == 1
    with server.models() as models:
        request = models_pb.GetModelRequest(model=ref("tiny-gan"))
        digest = models.GetModel(request, timeout=TIMEOUT_S).model.digest
    assert len(digest) == 64
    assert value(server, "latentserve_model_info", **info, digest=digest) == 1
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


def test_refused_and_dropped_requests_have_a_reason(exports: Path, tmp_path: Path) -> None:
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
        refused = {**VAE, "operation": "sample", "reason": "queue_full"}
        assert value(server, "latentserve_rejected_total", **refused) == 1
        dropped = {**VAE, "operation": "sample"}
        assert value(server, "latentserve_dropped_total", **dropped) == 2
        ended = {"grpc_method": "Sample", "grpc_type": "unary"}
        assert settled(server, 5, "grpc_server_handled_total", **ended)
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


def counted(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all counters and all series of histograms, without those of processes."""
    return {
        (name, frozenset(found.items())): number
        for name, samples in scrape(server).items()
        for found, number in samples
        if name.endswith(("_total", "_bucket", "_count", "_sum"))
        and not name.startswith("process_")
    }


def sample_over_a_new_connection(server: Server) -> None:
    """Make a call, and retry it if its worker is killed during the call."""
    while True:
        with server.generative() as stub:
            request = pb.SampleRequest(model=ref("tiny-vae"), count=1)
            try:
                stub.Sample(request, timeout=TIMEOUT_S)
                return
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


def test_no_counter_falls_when_a_worker_is_killed_and_replaced(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--metrics-listen", "127.0.0.1:0", "--workers", "2")
    with served(exports, tmp_path / "log", *flags) as server:
        for _ in range(10):
            sample_over_a_new_connection(server)
        before = counted(server)
        victim = server.worker_pids()[1]
        os.kill(victim, signal.SIGKILL)
        scrapes = after = 0
        end = time.monotonic() + TIMEOUT_S
        while after < 10:
            assert time.monotonic() < end, server.log
            sample_over_a_new_connection(server)
            now = counted(server)
            assert before.keys() <= now.keys()
            assert {key for key, number in before.items() if now[key] < number} == set()
            before, scrapes = now, scrapes + 1
            after += server.worker_pids()[1] != victim
        calls = sum(
            number
            for (name, labels), number in before.items()
            if name == "grpc_server_started_total" and ("grpc_method", "Sample") in labels
        )
        # Counts of the killed worker after its last scrape are lost.
        assert 10 <= calls <= 10 + 2 * scrapes
        assert server.stop() == 0


def test_a_busy_metrics_port_ends_the_process(server: Server, tmp_path: Path) -> None:
    flags = ("--metrics-listen", server.address)
    with launched(tmp_path / "exports", tmp_path / "log2", *flags) as second:
        assert second.process.wait(TIMEOUT_S) == 2
        assert f"--metrics-listen {server.address} cannot be used" in second.log
        assert "Traceback" not in second.log
