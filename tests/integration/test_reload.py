"""Tests of reloads that add, replace and remove models, also under load."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from served import Server, ref, served

TIMEOUT_S = 20.0
ACTION = models_pb.ReloadOutcome.Action
# docs/performance.md quotes a long run with 1000.
RELOADS = int(os.environ.get("LATENTSERVE_TEST_RELOADS", "60"))


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


@pytest.fixture
def server(exports: Path, tmp_path: Path) -> Iterator[Server]:
    with served(exports, tmp_path / "log", "--default-model", "tiny-vae") as running:
        yield running


def reload(server: Server, *names: str) -> dict[tuple[str, int], tuple[str, str]]:
    """Reload, and return (action, reason) by (name, version)."""
    with server.models() as stub:
        reply = stub.ReloadModels(models_pb.ReloadModelsRequest(names=names), timeout=TIMEOUT_S)
    return {(o.name, o.version): (ACTION.Name(o.action), o.reason) for o in reply.outcomes}


def sample(server: Server, version: int = 0) -> Any:
    with server.generative() as stub:
        request = pb.SampleRequest(model=ref("tiny-vae", version), count=1, seed=1)
        return stub.Sample(request, timeout=TIMEOUT_S)


def wait_for_version(server: Server, version: int) -> None:
    end = time.monotonic() + TIMEOUT_S
    while sample(server).served_by.version != version:
        assert time.monotonic() < end, server.log
        time.sleep(0.05)


def publish(root: Path, version: int) -> None:
    """Write a version in a temporary folder and rename it, as export does."""
    staged = tiny_models.write_model(root / ".staging", "tiny-vae", version=version)
    target = root / "tiny-vae" / str(version)
    if target.exists():
        shutil.rmtree(target)
    staged.rename(target)


def resident_mb(server: Server) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def status(server: Server, name: str) -> int:
    with server.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=name)
        found: int = stub.Check(request, timeout=TIMEOUT_S).status
    return found


def test_a_new_version_is_served_after_a_reload(server: Server, exports: Path) -> None:
    publish(exports, 2)
    assert sample(server).served_by.version == 1
    assert reload(server) == {
        ("tiny-vae", 1): ("ACTION_UNCHANGED", ""),
        ("tiny-vae", 2): ("ACTION_LOADED", ""),
    }
    assert sample(server).served_by.version == 2
    assert sample(server, 1).served_by.version == 1


def test_a_bad_version_is_refused_everywhere_and_the_old_one_stays(
    server: Server, exports: Path
) -> None:
    digest = sample(server).served_by.digest
    golden = exports / "tiny-vae" / "1" / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1])
    manifest = exports / "tiny-vae" / "1" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    action, reason = reload(server)["tiny-vae", 1]
    assert action == "ACTION_REFUSED"
    assert "golden.npz has" in reason
    assert reason in server.log
    with server.models() as stub:
        model = stub.GetModel(models_pb.GetModelRequest(), timeout=TIMEOUT_S).model
    assert (model.state, model.reason) == (models_pb.Model.STATE_READY, reason)
    assert sample(server).served_by.digest == digest


def test_health_follows_the_models(server: Server, exports: Path) -> None:
    tiny_models.write_model(exports, "tiny-gan", kind="gan")
    reload(server)
    assert status(server, "tiny-gan") == health_pb2.HealthCheckResponse.SERVING
    shutil.rmtree(exports / "tiny-gan")
    assert reload(server)["tiny-gan", 1] == ("ACTION_REMOVED", "")
    assert status(server, "tiny-gan") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert status(server, "") == health_pb2.HealthCheckResponse.SERVING


def test_only_the_named_model_is_reloaded(server: Server, exports: Path) -> None:
    tiny_models.write_model(exports, "tiny-gan", kind="gan")
    publish(exports, 2)
    assert set(reload(server, "tiny-gan")) == {("tiny-gan", 1)}
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, "tiny-dog")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert sample(server).served_by.version == 1


def test_sighup_reloads(server: Server, exports: Path) -> None:
    publish(exports, 2)
    server.process.send_signal(signal.SIGHUP)
    wait_for_version(server, 2)


def test_polling_ignores_a_folder_until_it_is_complete(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", "--poll-s", "0.2") as server:
        staged = tiny_models.write_model(tmp_path / "staged", "tiny-vae", version=2)
        target = exports / "tiny-vae" / "2"
        target.mkdir()
        # A slow copy: file by file, with the manifest last.
        for name in ("golden.npz", "encode.onnx", "decode.onnx", "reconstruct.onnx"):
            shutil.copy(staged / name, target)
            time.sleep(0.1)
        shutil.copy(staged / "manifest.json", target)
        wait_for_version(server, 2)
        shutil.rmtree(target)
        wait_for_version(server, 1)


def test_a_stream_ends_on_the_version_it_began_with(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", delay_s=0.1) as server, server.generative() as stub:
        request = pb.SampleStreamRequest(count=20, chunk_rows=1, seed=1)
        stream = stub.SampleStream(request, timeout=TIMEOUT_S)
        first = next(stream)
        publish(exports, 2)
        shutil.rmtree(exports / "tiny-vae" / "1")
        outcomes = reload(server)
        assert outcomes["tiny-vae", 1] == ("ACTION_REMOVED", "")
        assert sample(server).served_by.version == 2
        rest = list(stream)
    assert [chunk.offset for chunk in rest] == list(range(1, 20))
    assert {chunk.served_by.digest for chunk in rest} == {first.served_by.digest}


def test_reloads_under_load_fail_no_call(server: Server, exports: Path) -> None:
    stop = threading.Event()
    failures: list[str] = []
    digests: set[str] = set()

    def load() -> None:
        with server.generative() as stub:
            while not stop.is_set():
                try:
                    reply = stub.Sample(pb.SampleRequest(count=3, seed=1), timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    failures.append(f"{error.code()}: {error.details()}")
                else:
                    digests.add(reply.served_by.digest)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    folder = exports / "tiny-vae" / "1"
    for number in range(RELOADS):
        manifest = tiny_models.read_manifest(folder)
        manifest["description"] = f"Reload {number}."
        tiny_models.write_manifest(folder, manifest)
        assert reload(server)["tiny-vae", 1] == ("ACTION_LOADED", "")
        if number == RELOADS // 2:
            halfway_mb = resident_mb(server)
    print(f"resident memory: {halfway_mb:.1f} MB half way, {resident_mb(server):.1f} MB at the end")
    assert resident_mb(server) < halfway_mb + 10
    stop.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert failures == []
    assert len(digests) > RELOADS // 2  # the new versions served calls of the load
    # Replaced engines are closed: their threads end after their last call.
    deadline = time.monotonic() + TIMEOUT_S
    tasks = Path(f"/proc/{server.process.pid}/task")
    while len(list(tasks.iterdir())) > 60:
        assert time.monotonic() < deadline, "threads pile up"
        time.sleep(0.1)
