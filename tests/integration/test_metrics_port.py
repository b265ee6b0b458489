"""Tests of the metrics port: clients that hold connections, other paths, and the probes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from scraped import metrics_url, value
from served import EITHER_TRANSPORT, Server, launched, served

TIMEOUT_S = 10.0
METRICS = ("--metrics-listen", "127.0.0.1:0")
PROCESSES = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "two"])


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


@pytest.fixture
def scraped(exports: Path, tmp_path: Path) -> Iterator[Server]:
    with served(exports, tmp_path / "log", *METRICS) as server:
        yield server


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, str]:
    """Return status and body of a reply."""
    server.wait_for_log("metrics are at")
    url = metrics_url(server).replace("/metrics", path)
    request = urllib.request.Request(url, method=method)  # noqa: S310 - own server
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def connect(server: Server) -> socket.socket:
    address = urlsplit(metrics_url(server))
    return socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S)


def eventually(check: Callable[[], object], expected: object) -> None:
    end = time.monotonic() + TIMEOUT_S
    while (found := check()) != expected:
        assert time.monotonic() < end, found
        time.sleep(0.02)


def count(server: Server, what: str) -> int:
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/{what}").iterdir())


@EITHER_TRANSPORT
@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"],
    ids=["nothing", "half a line", "requests whose replies are not read"],
)
def test_held_connections_take_neither_threads_nor_files_nor_scrapes(
    scraped: Server, sent: bytes
) -> None:
    assert value(scraped, "latentserve_model_state", state="ready") == 1
    threads, files = count(scraped, "task"), count(scraped, "fd")
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            held = stack.enter_context(connect(scraped))
            with contextlib.suppress(OSError):  # already replaced by a later connection
                held.sendall(sent)
        assert value(scraped, "latentserve_model_state", state="ready") == 1
        assert ask(scraped, "/readyz") == (200, "serving\n")
        eventually(lambda: count(scraped, "fd") <= files + 8, True)
        assert count(scraped, "task") <= threads + 1  # the probes' thread
        with scraped.generative() as stub:  # a new connection of a client
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
    assert scraped.stop() == 0


@EITHER_TRANSPORT
def test_an_idle_connection_is_closed(scraped: Server) -> None:
    with connect(scraped) as idle:
        idle.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert idle.recv(1) == b""


@EITHER_TRANSPORT
def test_unknown_paths_methods_and_protocols(scraped: Server) -> None:
    for path in ("/", "/metric", "/metrics/", "/healthz/x", "//"):
        assert ask(scraped, path)[0] == 404, path
    assert ask(scraped, "/metrics", "POST")[0] == 405
    assert ask(scraped, "/metrics", "HEAD") == (200, "")
    assert ask(scraped, "/metrics?name[]=latentserve_queue_rows")[0] == 200
    for rubbish in (b"\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 4000 + b"\r\n\r\n"):
        with connect(scraped) as connection:
            connection.sendall(rubbish)
            assert connection.recv(100).startswith(b"HTTP/1.1 404 ")
    with connect(scraped) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)
        assert connection.recv(1) == b""
    assert "Traceback" not in scraped.log
    assert ask(scraped, "/metrics")[0] == 200


@PROCESSES
def test_the_probes_follow_start_and_stop(
    exports: Path, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    ready = "2 of 2 workers are ready\n" if workers else "serving\n"
    flags = (*METRICS, *workers, "--drain-delay-s", "1.5")
    with launched(exports, tmp_path / "log", *flags, warm_up_delay_s=1.0) as server:
        loading = "0 of 2 workers are ready\n" if workers else "starting\n"
        assert ask(server, "/readyz") == (503, loading)
        assert ask(server, "/healthz") == (200, loading)
        server.wait_until_serving(workers=bool(workers))
        assert ask(server, "/readyz") == (200, ready)
        assert ask(server, "/healthz") == (200, ready)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: ask(server, "/readyz"), (503, "stopping\n"))
        assert ask(server, "/healthz") == (200, "stopping\n")
        assert server.process.wait(TIMEOUT_S) == 0


@PROCESSES
def test_the_probes_report_stuck_engines(
    exports: Path, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    flags = (*METRICS, *workers, "--watchdog-s", "0.4")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=2.0) as server,
        contextlib.ExitStack() as stack,
    ):
        calls = []
        # Several connections, so that each worker has calls; it depends on the kernel which.
        for _ in range(16 if workers else 1):
            stub = stack.enter_context(server.generative())
            calls.append(stub.Sample.future(pb.SampleRequest(count=1), timeout=2 * TIMEOUT_S))
        stuck = "0 of 2 workers are ready\n" if workers else "an engine is stuck\n"
        eventually(lambda: ask(server, "/healthz"), (503, stuck))
        assert ask(server, "/readyz") == (503, stuck)
        for call in calls:
            call.result()
        eventually(lambda: ask(server, "/readyz")[0], 200)
        assert ask(server, "/healthz")[0] == 200


@EITHER_TRANSPORT
def test_the_probes_report_workers_that_do_not_respond(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *METRICS, "--workers", "2") as server:
        pids = list(server.worker_pids().values())
        os.kill(pids[0], signal.SIGSTOP)
        assert ask(server, "/readyz") == (200, "1 of 2 workers are ready\n")
        os.kill(pids[1], signal.SIGSTOP)
        assert ask(server, "/healthz") == (503, "0 of 2 workers are ready\n")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: ask(server, "/readyz"), (200, "2 of 2 workers are ready\n"))
        assert server.stop() == 0
