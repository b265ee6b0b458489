"""A log on a full disk or a closed pipe loses only log lines."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from checked_load import CheckedLoad
from latentserve.v1 import generative_service_pb2 as pb
from served import BEFORE_ANY_TRANSPORT, EITHER_TRANSPORT, Server
from vitals import eventually

TWO = ("--workers", "2")
# Python with its default buffering of stdout and stderr, also where the test runs without it.
ENVIRONMENT = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"}


def full_disk() -> int:
    """Return a file descriptor to which writes fail with ENOSPC."""
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe() -> int:
    """Return a file descriptor to which writes fail with EPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def started(target: int, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server program with stdout and stderr on a descriptor, which is then closed here."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "latentserve_server", *flags],
            stdout=target,
            stderr=target,
            env={**ENVIRONMENT, "LATENTSERVE_TRANSPORT": os.environ["LATENTSERVE_TRANSPORT"]},
        )
    finally:
        os.close(target)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("open_target", [full_disk, closed_pipe])
def test_a_log_that_cannot_be_written_loses_nothing_but_lines(
    exports: Path, tmp_path: Path, open_target: Callable[[], int]
) -> None:
    check_replies(exports, tmp_path, open_target)


@EITHER_TRANSPORT
def test_logs_of_several_workers_that_cannot_be_written(exports: Path, tmp_path: Path) -> None:
    check_replies(exports, tmp_path, full_disk, *TWO)


def check_replies(
    exports: Path, tmp_path: Path, open_target: Callable[[], int], *workers: str
) -> None:
    """Check the replies of valid and invalid calls, and the exit status of a normal stop."""
    address = free_address()
    flags = ("--exports", str(exports), "--listen", address, "--log-requests", "yes", *workers)
    with started(open_target(), *flags) as process:
        server = Server(process, tmp_path / "log", address)
        with server.channel() as channel:
            grpc.channel_ready_future(channel).result(20)
        with server.generative() as stub:
            request = pb.SampleRequest(count=1)

            def succeeds() -> bool:
                with contextlib.suppress(grpc.RpcError):
                    stub.Sample(request, timeout=5)
                    return True
                return False

            eventually(succeeds)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Sample(pb.SampleRequest(count=0), timeout=5)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with CheckedLoad(server) as load:
            load.wait_for(50)
        assert server.stop() == 0


@BEFORE_ANY_TRANSPORT
def test_the_exit_status_says_what_the_log_cannot(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    table = {
        ("--exports", str(tmp_path / "nowhere")): 2,
        ("--exports", str(tmp_path / "empty"), "--listen", "127.0.0.1:0"): 3,
    }
    for flags, status in table.items():
        with started(full_disk(), *flags) as process:
            assert process.wait(30) == status
