"""A process without free file descriptors accepts no new connections, and recovers by itself."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import grpc
import pytest

from checked_load import CheckedLoad, check_reconstruct
from latentserve.v1 import model_service_pb2 as models_pb
from served import served
from vitals import Vitals, eventually

SPARE = 12
TIMEOUT_S = 20.0


def test_connections_beyond_the_limit_wait_and_the_others_are_served(
    exports: Path, tmp_path: Path
) -> None:
    with (
        served(exports, tmp_path / "log") as server,
        server.models() as models,
        CheckedLoad(server) as load,
    ):
        models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        load.wait_for(20)
        pid = server.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        limit = Vitals.of(pid).files + SPARE
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
        host, _, port = server.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(2 * SPARE):
                stack.enter_context(socket.create_connection((host, int(port))))
            eventually(lambda: Vitals.of(pid).files >= limit, "the limit was not reached")
            load.wait_for(100)
            # A reload needs a file and is refused for that reason; the served models stay.
            with pytest.raises(grpc.RpcError) as caught:
                models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "Too many open files" in caught.value.details()
            load.wait_for(20)
        with server.generative() as stub:
            check_reconstruct(stub, 3, seed=1)  # connects within its deadline
        models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        eventually(lambda: Vitals.of(pid).files < limit - SPARE // 2)
        load.finish()
        assert server.stop() == 0
