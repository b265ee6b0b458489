"""A model folder that is swapped, truncated or deleted does not affect the served models."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import tiny_models
from checked_load import CheckedLoad, check_reconstruct
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from scraped import value
from served import EITHER_TRANSPORT, Server, launched, served
from vitals import eventually

TIMEOUT_S = 20.0
ACTION = models_pb.ReloadOutcome.Action
METRICS = ("--metrics-listen", "127.0.0.1:0")


@pytest.fixture
def server(exports: Path, tmp_path: Path) -> Iterator[Server]:
    with served(exports, tmp_path / "log", *METRICS, "--default-model", "tiny-vae") as running:
        yield running
        assert "Traceback" not in running.log


def reload(server: Server) -> dict[int, tuple[str, str]]:
    """Reload; return version -> (action, reason)."""
    with server.models() as stub:
        reply = stub.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
    return {
        outcome.version: (ACTION.Name(outcome.action), outcome.reason) for outcome in reply.outcomes
    }


def model(server: Server) -> Any:
    with server.models() as stub:
        return stub.GetModel(models_pb.GetModelRequest(), timeout=TIMEOUT_S).model


def digest(server: Server) -> str:
    found: str = model(server).digest
    return found


def truncate_graph(folder: Path) -> str:
    graph = folder / "reconstruct.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    return "reconstruct.onnx has 100 bytes"


def truncate_manifest(folder: Path) -> str:
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    return "manifest.json is not JSON"


def swap_with_another_model(folder: Path) -> str:
    other = tiny_models.write_model(folder.parents[2], "tiny-gan", kind="gan")
    shutil.rmtree(folder)
    other.rename(folder)
    return "the manifest says tiny-gan version 1, but its folder is tiny-vae/1"


def swap_weights(folder: Path) -> str:
    """Replace a graph by other content of the same length."""
    graph = folder / "reconstruct.onnx"
    graph.write_bytes(graph.read_bytes()[::-1])
    return "reconstruct.onnx has SHA-256"


def delete_weights(folder: Path) -> str:
    (folder / "reconstruct.onnx").unlink()
    return "reconstruct.onnx cannot be read: No such file"


def delete_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "manifest.json cannot be read: No such file"


def make_unreadable(folder: Path) -> str:
    """Replace a file by a folder, because root can read files with any mode."""
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    return "manifest.json cannot be read: it is not a regular file"


SPOILS: tuple[Callable[[Path], str], ...] = (
    truncate_graph,
    truncate_manifest,
    swap_with_another_model,
    swap_weights,
    delete_weights,
    delete_manifest,
    make_unreadable,
)


@EITHER_TRANSPORT
def test_a_spoilt_folder_changes_no_answer_and_is_told_everywhere(
    server: Server, exports: Path, tmp_path: Path
) -> None:
    folder = exports / "tiny-vae" / "1"
    shutil.copytree(folder, tmp_path / "good")
    served_before = digest(server)
    with CheckedLoad(server) as load:
        for count, spoil in enumerate(SPOILS, start=1):
            reason = spoil(folder)
            action, reported = reload(server)[1]
            assert (action, reason in reported) == ("ACTION_REFUSED", True), (spoil, reported)
            found = model(server)
            assert (found.state, found.reason) == (models_pb.Model.STATE_READY, reported)
            assert found.digest == served_before
            assert reported in server.log
            assert value(server, "latentserve_reload_outcomes_total", action="refused") == count
            assert str(tmp_path) not in reported
            load.wait_for(20)
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "good", folder)
            assert reload(server) == {1: ("ACTION_UNCHANGED", "")}
            assert model(server).reason == ""


@EITHER_TRANSPORT
def test_a_root_that_is_gone_leaves_everything_as_it_is(server: Server, exports: Path) -> None:
    """An unmounted volume, which leaves an empty mount point, must not unload all models."""
    aside = exports.with_name("aside")
    with CheckedLoad(server) as load:
        exports.rename(aside)
        with pytest.raises(grpc.RpcError) as caught:
            reload(server)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "the model folder cannot be used: No such file" in caught.value.details()
        assert str(exports) not in caught.value.details()
        server.wait_for_log(f"{exports} cannot be used: No such file")
        assert value(server, "latentserve_reload_failures_total") == 1
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: value(server, "latentserve_reload_failures_total") == 2)
        load.wait_for(50)
        exports.mkdir()
        with pytest.raises(grpc.RpcError) as caught:
            reload(server)
        assert "it is empty" in caught.value.details()
        load.wait_for(50)
        exports.rmdir()
        aside.rename(exports)
        assert reload(server) == {1: ("ACTION_UNCHANGED", "")}


@EITHER_TRANSPORT
def test_polling_survives_whatever_happens_to_the_folder(exports: Path, tmp_path: Path) -> None:
    flags = (*METRICS, "--poll-s", "0.1", "--default-model", "tiny-vae")
    aside, folder = exports.with_name("aside"), exports / "tiny-vae" / "1"
    with served(exports, tmp_path / "log", *flags) as server, CheckedLoad(server) as load:
        exports.rename(aside)
        eventually(lambda: value(server, "latentserve_reload_failures_total") >= 1)
        load.wait_for(50)
        aside.rename(exports)
        reason = truncate_graph(folder)
        eventually(lambda: reason in model(server).reason)
        failures = value(server, "latentserve_reload_failures_total")
        # Reported once, not at every poll.
        assert value(server, "latentserve_reload_outcomes_total", action="refused") == 1
        assert failures == 1
        shutil.rmtree(folder)
        tiny_models.write_model(exports, "tiny-vae", version=2)
        eventually(lambda: model(server).version == 2)
        load.wait_for(50)
        assert server.log.count("Traceback") == 0


def test_reloads_that_take_long_keep_no_large_request_waiting(
    exports: Path, tmp_path: Path
) -> None:
    """Neither queued reloads nor the running one may block threads that calls need."""
    limits = ("--max-request-rows", "5000", "--queue-rows", "10000")
    flags = (*METRICS, *limits)
    with launched(exports, tmp_path / "log", *flags, warm_up_delay_s=0.7) as server:
        server.wait_until_serving()
        manifest = tiny_models.read_manifest(exports / "tiny-vae" / "1")
        manifest["description"] = "Changed."
        tiny_models.write_manifest(exports / "tiny-vae" / "1", manifest)
        with server.models() as models, server.generative() as stub:
            request = models_pb.ReloadModelsRequest()
            reloads = [models.ReloadModels.future(request, timeout=TIMEOUT_S) for _ in range(3)]
            check_reconstruct(
                stub, 5000, seed=1
            )  # 320 kB, which are parsed on another thread than the event loop
            assert not any(reload.done() for reload in reloads)
            actions = {reload.result().outcomes[0].action for reload in reloads}
        assert actions == {ACTION.Value("ACTION_LOADED"), ACTION.Value("ACTION_UNCHANGED")}


@EITHER_TRANSPORT
def test_the_other_models_stay_when_one_is_deleted(server: Server, exports: Path) -> None:
    """A model is removed by deleting its folder; the error then lists the available models."""
    tiny_models.write_model(exports, "tiny-gan", kind="gan")
    reload(server)
    with CheckedLoad(server) as load:
        shutil.rmtree(exports / "tiny-gan")
        with server.models() as stub:
            ref = models_pb.GetModelRequest(model=tensor_pb2.ModelRef(name="tiny-gan"))
            assert stub.GetModel(ref, timeout=TIMEOUT_S).model.state == models_pb.Model.STATE_READY
            reload(server)
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetModel(ref, timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert "Models: tiny-vae" in caught.value.details()
        load.wait_for(50)
