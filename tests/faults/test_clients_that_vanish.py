"""Clients that are killed, freeze, stop reading or send nothing do not affect other clients."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checked_load import CALLS, CheckedLoad
from scraped import scrape, value
from served import Server, served
from vitals import Vitals, eventually

VICTIM = Path(__file__).parent / "victim.py"
METRICS = ("--metrics-listen", "127.0.0.1:0")
# Variation of an idle server's resident memory between two readings.
MARGIN_MB = 8.0
SAMPLED = {"operation": "sample"}


@pytest.fixture
def server(exports: Path, tmp_path: Path) -> Iterator[Server]:
    with served(exports, tmp_path / "log", *METRICS) as running:
        yield running
        assert running.stop() == 0
        assert "stopping: 0 calls in flight" in running.log
        assert "Traceback" not in running.log


VICTIMS = 10


@contextlib.contextmanager
def victim(server: Server, task: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client process, and yield it when its task has started."""
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), server.address, task], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def in_flight(server: Server, **labels: str) -> float:
    """Return the number of calls that have started and not ended."""
    labels |= CALLS
    found = scrape(server)
    started, handled = (
        sum(number for have, number in found.get(name, []) if labels.items() <= have.items())
        for name in ("grpc_server_started_total", "grpc_server_handled_total")
    )
    return started - handled


@pytest.mark.parametrize(("task", "method"), [("stream", "SampleStream"), ("unary", "Sample")])
def test_a_client_killed_in_the_middle_of_its_calls_is_forgotten(
    exports: Path, tmp_path: Path, task: str, method: str
) -> None:
    with (
        served(exports, tmp_path / "log", *METRICS, delay_s=0.01) as server,
        CheckedLoad(server) as load,
    ):
        found = {"grpc_code": "CANCELLED", "grpc_method": method}
        for _ in range(VICTIMS):
            with victim(server, task) as process:
                load.wait_for(6)
                process.kill()
                load.wait_for(6)
            eventually(
                lambda: in_flight(server, grpc_method=method) == 0, "a call remains in flight"
            )
            if value(server, "grpc_server_handled_total", **found):
                break  # it was killed during a call, not between two calls
        else:
            pytest.fail(f"none of {VICTIMS} clients was killed while a call was in flight")
        load.finish()
        assert value(server, "latentserve_queue_rows") == 0
        assert server.stop() == 0
    assert "stopping: 0 calls in flight" in server.log
    assert "Traceback" not in server.log


def test_a_client_that_does_not_read_its_stream_costs_a_bounded_buffer(server: Server) -> None:
    """A million images of 64 bytes are 64 MB, which only flow control limits."""
    with CheckedLoad(server) as load:
        load.wait_for(50)
        before_mb = Vitals.of(server.process.pid).resident_mb
        with victim(server, "unread") as process:
            os.kill(process.pid, signal.SIGSTOP)
            rows = -1.0
            while rows != (rows := value(server, "latentserve_batch_rows_sum", **SAMPLED)):
                load.wait_for(50)
            assert rows < 500_000, "the stream did not wait for its reader"
            assert in_flight(server, grpc_method="SampleStream") == 1
            assert Vitals.of(server.process.pid).resident_mb < before_mb + MARGIN_MB
            load.wait_for(50)
    eventually(lambda: in_flight(server, grpc_method="SampleStream") == 0)


def test_connections_that_say_nothing_or_rubbish_harm_nobody(server: Server) -> None:
    host, _, port = server.address.rpartition(":")
    with CheckedLoad(server) as load, contextlib.ExitStack() as stack:
        load.wait_for(20)
        for greeting in (
            b"",
            b"PRI * HTTP/2.0\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(range(256)) * 64,
        ):
            for _ in range(20):
                half_open = stack.enter_context(socket.create_connection((host, int(port))))
                half_open.sendall(greeting)
        load.wait_for(100)
        files = Vitals.of(server.process.pid).files
    eventually(
        lambda: Vitals.of(server.process.pid).files <= files - 20, "its sockets were not closed"
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_peer_that_went_without_a_word_is_hung_up_on(server: Server) -> None:
    """A frozen process does not reply to pings, like a machine without power.

    See `transport/server_options`.
    """
    with victim(server, "stream") as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert in_flight(server, grpc_method="SampleStream") == 1
        eventually(
            lambda: in_flight(server, grpc_method="SampleStream") == 0,
            "it is not closed",
            limit_s=120,
        )
