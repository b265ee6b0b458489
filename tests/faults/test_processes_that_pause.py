"""Processes paused by SIGSTOP and SIGCONT, as by a debugger, a paused container or a migration."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checked_load import CheckedLoad
from latentserve.v1 import generative_service_pb2 as pb
from scraped import value
from served import EITHER_TRANSPORT, served
from vitals import eventually, state

WATCHDOG_S = 1.2
PAUSE_S = 1.4
WATCHED = ("--watchdog-s", str(WATCHDOG_S), "--watchdog-exit", "yes")


def health(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes, and continue them at the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state(pid) == "T" for pid in pids))
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_was_stopped_and_goes_on_answers_as_before(
    exports: Path, tmp_path: Path
) -> None:
    """The watchdog must not report an engine as stuck because the whole process was paused."""
    flags = ("--watchdog-s", "0.8", "--watchdog-exit", "yes", "--metrics-listen", "127.0.0.1:0")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=1.4) as server,
        server.generative() as stub,
    ):
        call = stub.Sample.future(pb.SampleRequest(count=1), timeout=30)
        eventually(lambda: value(server, "latentserve_stalled_seconds") > 0)
        with stopped(server.process.pid), pytest.raises(grpc.RpcError) as caught:
            # When the process continues, the call has run for longer than the watchdog's limit.
            stub.Sample(pb.SampleRequest(count=1), timeout=1.0)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        call.result()
        assert "is stuck" not in server.log
        assert server.stop() == 0


@EITHER_TRANSPORT
def test_a_pause_hides_no_stuck_engine(exports: Path, tmp_path: Path) -> None:
    flags = ("--watchdog-s", "0.5", "--grace-s", "0.1")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=20.0) as server,
        server.generative() as stub,
        server.channel() as channel,
    ):
        call = stub.Sample.future(pb.SampleRequest(count=1), timeout=30)
        statuses = health(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        with stopped(server.process.pid):
            time.sleep(PAUSE_S)
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        statuses.cancel()
        call.cancel()


@EITHER_TRANSPORT
def test_a_whole_group_that_was_stopped_loses_no_worker(exports: Path, tmp_path: Path) -> None:
    flags = ("--workers", "2", *WATCHED, "--metrics-listen", "127.0.0.1:0")
    with served(exports, tmp_path / "log", *flags) as server:
        before = server.worker_pids()
        with CheckedLoad(server) as load:
            load.wait_for(50)
            with stopped(*before.values()):
                time.sleep(WATCHDOG_S / 3)  # the supervisor has sent them a ping
                with stopped(server.process.pid):
                    time.sleep(PAUSE_S)
                time.sleep(0.1)  # the supervisor continues shortly before the workers
            load.wait_for(50)
        assert server.worker_pids() == before
        assert value(server, "latentserve_worker_restarts_total") == 0
        assert server.stop() == 0
