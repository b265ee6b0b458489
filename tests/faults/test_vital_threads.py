"""Threads that fail or hang, without which a process cannot serve."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server import exit_status
from served import EITHER_TRANSPORT, Server, ref, served
from vitals import eventually

PROGRAM = Path(__file__).parents[1] / "failing_threads.py"
LIMIT_S = 20.0
ONLY_CQ = pytest.mark.parametrize("transport", ["cq"], indirect=True)
ONLY_AIO = pytest.mark.parametrize("transport", ["aio"], indirect=True)


@contextlib.contextmanager
def failing(part: str, exports: Path, tmp_path: Path, *flags: str) -> Iterator[tuple[Server, Path]]:
    """Start a server whose part fails or hangs as soon as the returned file exists."""
    switch = tmp_path / "switch"
    program = (str(PROGRAM), part, str(switch))
    with served(exports, tmp_path / "log", *flags, program=program) as server:
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=LIMIT_S)
        yield server, switch


def sample(server: Server) -> None:
    """Send a call that may fail, because the process may end."""
    with contextlib.suppress(grpc.RpcError), server.generative() as stub:
        stub.Sample(pb.SampleRequest(count=1), timeout=2.0)


def health(server: Server) -> Any:
    with server.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S).status


@ONLY_CQ
def test_a_polling_thread_that_fails_ends_the_process(exports: Path, tmp_path: Path) -> None:
    with failing("polling", exports, tmp_path) as (server, switch):
        switch.touch()
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED
        assert "the thread polling has failed, so the process ends" in server.log
        assert "MemoryError: injected" in server.log


@ONLY_CQ
def test_a_method_that_accepts_no_more_calls_ends_the_process(
    exports: Path, tmp_path: Path
) -> None:
    with failing("accepting", exports, tmp_path) as (server, switch):
        switch.touch()
        sample(server)
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED
        assert "GenerativeService/Sample has failed, so the process ends" in server.log


@ONLY_AIO
def test_the_end_of_the_loop_that_accepts_calls_ends_the_process(
    exports: Path, tmp_path: Path
) -> None:
    with failing("main-loop", exports, tmp_path) as (server, switch):
        switch.touch()
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED
        assert "the server of grpc.aio has failed" in server.log


def test_an_engine_thread_that_fails_ends_the_process(exports: Path, tmp_path: Path) -> None:
    with failing("engine", exports, tmp_path) as (server, switch):
        switch.touch()
        sample(server)
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED
        assert "has failed, so the process ends" in server.log


@EITHER_TRANSPORT
def test_a_watchdog_that_fails_ends_the_process(exports: Path, tmp_path: Path) -> None:
    with failing("watchdog", exports, tmp_path, "--watchdog-s", "1") as (server, switch):
        switch.touch()
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED


@EITHER_TRANSPORT
def test_a_worker_that_can_receive_no_commands_is_replaced(exports: Path, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--watchdog-s", "2", "--watchdog-exit", "yes")
    with failing("commands", exports, tmp_path, *flags) as (server, switch):
        switch.touch()
        server.wait_for_log(r"worker \d \(process \d+\) ended with exit status 7")
        switch.unlink()


@EITHER_TRANSPORT
def test_a_supervisor_that_fails_ends_and_its_workers_drain(exports: Path, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--watchdog-s", "2", "--watchdog-exit", "yes")
    with failing("supervisor", exports, tmp_path, *flags) as (server, switch):
        switch.touch()
        assert server.process.wait(LIMIT_S) == exit_status.THREAD_FAILED
        exited = "the supervisor has exited; this worker stops"
        eventually(lambda: server.log.count(exited) == server.log.count("stopped: every call") == 2)


@pytest.mark.parametrize("part", ["polling-hangs", "loop-hangs"])
def test_a_process_without_signs_of_life_ends_where_that_is_wanted(
    part: str, transport: str, exports: Path, tmp_path: Path
) -> None:
    if (part, transport) == ("polling-hangs", "aio"):
        part = "loop-hangs"
    flags = ("--watchdog-s", "1", "--watchdog-exit", "yes")
    with failing(part, exports, tmp_path, *flags) as (server, switch):
        switch.touch()
        assert server.process.wait(LIMIT_S) == exit_status.STUCK
        assert "has shown no sign of life" in server.log


def test_a_batch_that_hangs_stops_neither_other_models_nor_health(
    transport: str, exports: Path, tmp_path: Path
) -> None:
    tiny_models.write_model(exports, "tiny-ae", kind="autoencoder")
    flags = ("--watchdog-s", "1", "--default-model", "tiny-vae")
    with (
        failing("batch-hangs", exports, tmp_path, *flags) as (server, switch),
        server.generative() as stub,
    ):

        def decode(model: str, latent: float, timeout_s: float = LIMIT_S) -> Any:
            data = np.full((1, tiny_models.DIM), latent, dtype=np.float32).tobytes()
            shape = [1, tiny_models.DIM]
            tensor = tensor_pb2.Tensor(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, data=data
            )
            request = pb.DecodeRequest(model=ref(model), latents=tensor)
            return stub.Decode.future(request, timeout=timeout_s)

        hanging = decode("tiny-vae", 1000.0, timeout_s=2.0)
        decode("tiny-ae", 1.0).result()
        assert hanging.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: health(server) == health_pb2.HealthCheckResponse.NOT_SERVING)
        decode("tiny-ae", 1.0).result()
        queued = decode("tiny-vae", 1.0)  # behind the batch that hangs
        decode("tiny-ae", 1.0).result()
        switch.touch()
        queued.result()
        eventually(lambda: health(server) == health_pb2.HealthCheckResponse.SERVING)
        decode("tiny-vae", 1.0).result()
        assert ("another thread polls" in server.log) == (transport == "cq")
        assert server.stop() == 0
