"""Tests of start, health, startup errors, and graceful stop."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import onnxruntime
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from served import BEFORE_ANY_TRANSPORT, Server, launched, ref, served

TIMEOUT_S = 10.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


def health(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def check(server: Server, service: str = "") -> int:
    with server.channel() as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = health(channel).Check(request, timeout=TIMEOUT_S).status
    return status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_not_serving_until_every_model_is_warm(exports: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with launched(exports, tmp_path / "log", "--listen", address, warm_up_delay_s=5.0) as server:
        server.address = address
        with server.channel() as channel:
            grpc.channel_ready_future(channel).result(TIMEOUT_S)
            statuses = health(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert next(statuses).status == NOT_SERVING
            assert check(server, "tiny-vae") == NOT_SERVING
            with server.generative() as stub, pytest.raises(grpc.RpcError) as caught:
                stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "is loading" in caught.value.details()
            with server.models() as models:
                listed = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S)
            assert [model.state for model in listed.models] == [models_pb.Model.STATE_LOADING]
            assert next(statuses).status == SERVING
            statuses.cancel()
        assert check(server, "tiny-vae") == SERVING
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)


def test_health_of_every_service_and_model(server: Server) -> None:
    for service in (
        "",
        "latentserve.v1.GenerativeService",
        "latentserve.v1.ModelService",
        "tiny-vae",
        "tiny-gan",
    ):
        assert check(server, service) == SERVING
    with server.channel() as channel:
        request = health_pb2.HealthCheckRequest(service="nothing")
        with pytest.raises(grpc.RpcError) as caught:
            health(channel).Check(request, timeout=TIMEOUT_S)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = health(channel).Watch(request, timeout=TIMEOUT_S)
        assert next(watch).status == SERVICE_UNKNOWN
        watch.cancel()


def test_reflection_lists_the_services_and_their_messages(server: Server) -> None:
    with server.channel() as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="latentserve.v1.GenerativeService"
            ),
        ]
        listing, file = stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S)
    assert {service.name for service in listing.list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "latentserve.v1.GenerativeService",
        "latentserve.v1.ModelService",
    }
    descriptors = [
        FileDescriptorProto.FromString(data)
        for data in file.file_descriptor_response.file_descriptor_proto
    ]
    assert "latentserve/v1/generative_service.proto" in [d.name for d in descriptors]


def test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest(
    exports: Path, tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", delay_s=0.5) as server:
        with server.generative() as stub, server.channel() as watching:
            statuses = health(watching).Watch(health_pb2.HealthCheckRequest(), timeout=20)
            assert next(statuses).status == SERVING
            unary = stub.Sample.future(pb.SampleRequest(count=3), timeout=TIMEOUT_S)
            stream = stub.SampleStream(pb.SampleStreamRequest(count=3, chunk_rows=1), timeout=20)
            next(stream)
            server.process.terminate()
            assert next(statuses).status == NOT_SERVING
            time.sleep(0.1)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "shutting down" in caught.value.details()
            assert unary.result().images.tensor.shape[0] == 3
            assert [chunk.offset for chunk in stream] == [1, 2]
        assert server.process.wait(TIMEOUT_S) == 0
    assert "stopped: every call was completed" in server.log
    assert "Traceback" not in server.log


def test_calls_are_still_served_during_the_drain_delay(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", "--drain-delay-s", "1") as server:
        with server.generative() as stub:
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            server.process.terminate()
            server.wait_for_log("stopping")
            assert check(server) == NOT_SERVING
            stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert server.process.wait(TIMEOUT_S) == 0


def test_the_grace_ends_and_a_second_signal_ends_it_sooner(exports: Path, tmp_path: Path) -> None:
    for flags, signals in ((("--grace-s", "0.2"), 1), (("--grace-s", "60"), 2)):
        with served(exports, tmp_path / "log", *flags, delay_s=1.0) as server:
            with server.generative() as stub:
                stream = stub.SampleStream(
                    pb.SampleStreamRequest(count=100, chunk_rows=1), timeout=60
                )
                next(stream)
                for _ in range(signals):
                    server.process.terminate()
                    time.sleep(0.3)
                with pytest.raises(grpc.RpcError) as caught:
                    list(stream)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert server.process.wait(TIMEOUT_S) == 0
        assert "calls were cut off" in server.log


def test_a_signal_while_the_models_load_ends_the_process(exports: Path, tmp_path: Path) -> None:
    with launched(exports, tmp_path / "log", warm_up_delay_s=1.0) as server:
        server.wait_for_log("--device auto")
        assert server.stop() == 0


def test_a_busy_port_is_an_error(exports: Path, tmp_path: Path) -> None:
    with (
        served(exports, tmp_path / "log") as first,
        launched(exports, tmp_path / "log2", "--listen", first.address) as second,
    ):
        assert second.process.wait(TIMEOUT_S) == 2
        assert f"--listen {first.address} cannot be used: the port is taken" in second.log
        assert "Traceback" not in second.log


@BEFORE_ANY_TRANSPORT
def test_cuda_without_a_gpu_is_a_startup_error(exports: Path, tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA: tests/gpu checks what cuda does here")
    with launched(exports, tmp_path / "log", "--device", "cuda") as server:
        assert server.process.wait(TIMEOUT_S) == 3
        assert "--device cuda is not available" in server.log
        assert "Traceback" not in server.log


def test_the_settings_and_the_provider_are_printed(server: Server) -> None:
    assert "max-request-rows=32" in server.log
    assert "with CPUExecutionProvider" in server.log


@BEFORE_ANY_TRANSPORT
def test_invalid_settings_end_the_process_with_a_message(exports: Path, tmp_path: Path) -> None:
    table = {
        ("--queue-rows", "many"): "--queue-rows is 'many', expected a whole number",
        ("--device", "tpu"): "--device is 'tpu', expected one of auto, cpu, cuda",
        ("--default-model", "tiny-vea"): "does not have this model",
        ("--exports", "nowhere"): "--exports nowhere is not a folder",
    }
    for flags, message in table.items():
        with launched(exports, tmp_path / "log", *flags) as server:
            assert server.process.wait(TIMEOUT_S) == 2
            assert message in server.log
            assert "Traceback" not in server.log


def drop_weights(folder: Path, manifest: dict[str, Any]) -> bool:
    (folder / "decode.onnx").unlink()
    return False


def wrong_sha256(folder: Path, manifest: dict[str, Any]) -> bool:
    manifest["files"]["decode.onnx"]["sha256"] = "0" * 64
    return False


def wrong_shape(folder: Path, manifest: dict[str, Any]) -> bool:
    manifest["image"]["height"] = 8
    return True


def unknown_field(folder: Path, manifest: dict[str, Any]) -> bool:
    manifest["colour"] = "blue"
    return True


def other_weights(folder: Path, manifest: dict[str, Any]) -> bool:
    (folder / "golden.npz").write_bytes((folder / "encode.onnx").read_bytes())
    return True


LIES: dict[Callable[[Path, dict[str, Any]], bool], str] = {
    wrong_sha256: "decode.onnx has SHA-256",
    drop_weights: "decode.onnx cannot be read: No such file",
    wrong_shape: "expected tensor",
    unknown_field: "'colour' was unexpected",
    other_weights: "golden.npz is not usable",
}


def test_a_wrong_manifest_is_refused_and_other_models_are_served(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "good")
    for lie in LIES:
        folder = tiny_models.write_model(root, lie.__name__.replace("_", "-"))
        manifest = tiny_models.read_manifest(folder)
        relist = lie(folder, manifest)
        tiny_models.write_manifest(folder, manifest, list_files=relist)
    with served(root, tmp_path / "log", "--default-model", "good") as server:
        with server.models() as models:
            listed = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        reasons = {model.name: model.reason for model in listed if model.name != "good"}
        for lie, message in LIES.items():
            name = lie.__name__.replace("_", "-")
            assert message in reasons[name]
            assert str(tmp_path) not in reasons[name]
            assert check(server, name) == NOT_SERVING
            with server.generative() as stub:
                request = pb.SampleRequest(model=ref(name), count=1)
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Sample(request, timeout=TIMEOUT_S)
                assert caught.value.code() == grpc.StatusCode.NOT_FOUND
                assert message in caught.value.details()
                stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)


@BEFORE_ANY_TRANSPORT
def test_a_folder_without_a_usable_model_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = tiny_models.write_model(tmp_path / "broken", "tiny-vae")
    (folder / "manifest.json").write_text("{", "utf-8")
    for root, message in (("empty", "no <name>/<version>/manifest.json"), ("broken", "not JSON")):
        with launched(tmp_path / root, tmp_path / "log") as server:
            assert server.process.wait(TIMEOUT_S) == 3
            assert "no model can be served" in server.log
            assert message in server.log
