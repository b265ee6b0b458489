"""Device selection without a silent fallback to the CPU."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import onnxruntime
import pytest

from latentserve_server.engine import device
from latentserve_server.engine.cuda_options import CudaOptions
from latentserve_server.engine.device import CPU, CPU_PROVIDER, CUDA_PROVIDER, cuda_device
from latentserve_server.errors import DeviceUnavailable, StartupError

CUDA = cuda_device(CudaOptions(), 64)
HAS_CUDA_BUILD = CUDA_PROVIDER in onnxruntime.get_available_providers()
without_cuda = pytest.mark.skipif(
    HAS_CUDA_BUILD,
    reason="onnxruntime-gpu IS INSTALLED: the refusal of a build without CUDA cannot be shown here",
)


@dataclass
class FakeNode:
    op_type: str


@dataclass
class FakePart:
    """The nodes of a graph that are assigned to one execution provider."""

    ep_name: str
    nodes: list[str]

    def get_nodes(self) -> list[FakeNode]:
        return [FakeNode(name) for name in self.nodes]


@dataclass
class FakeSession:
    """The methods of an ONNX Runtime session that report its execution providers."""

    providers: list[str]
    parts: list[FakePart] = field(default_factory=list)

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[FakePart]:
        return self.parts


def test_the_cpu_can_be_chosen() -> None:
    chosen = device.choose_device("cpu")
    assert chosen is CPU
    assert chosen.providers == [CPU_PROVIDER]


@without_cuda
def test_cuda_is_refused_by_a_build_without_it() -> None:
    with pytest.raises(DeviceUnavailable) as refused:
        device.choose_device("cuda")
    reason = str(refused.value)
    assert "--device cuda" in reason
    assert "build without CUDA" in reason
    assert "latentserve-server[gpu]" in reason
    assert "--device cpu" in reason
    assert isinstance(refused.value, StartupError)


@without_cuda
def test_auto_falls_back_to_the_cpu_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="latentserve_server"):
        assert device.choose_device("auto") is CPU
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "--device auto" in record.getMessage()
    assert "on the CPU" in record.getMessage()
    assert "build without CUDA" in record.getMessage()


def test_choosing_the_cpu_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="latentserve_server"):
        device.choose_device("cpu")
    assert not caplog.records


@without_cuda
@pytest.mark.parametrize(
    ("chosen", "warns"), [(CudaOptions(), False), (CudaOptions(tf32=True), True)]
)
def test_auto_warns_about_ignored_cuda_settings(
    caplog: pytest.LogCaptureFixture, chosen: CudaOptions, warns: bool
) -> None:
    assert device.choose_device("auto", chosen) is CPU
    assert ("the settings for CUDA have no effect" in caplog.text) == warns


@dataclass
class FakeDriver:
    """The functions of libcuda that report the GPUs."""

    init: int = 0
    count: int = 1

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's name
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates an installed onnxruntime-gpu."""
    providers = [CUDA_PROVIDER, CPU_PROVIDER]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


@pytest.mark.usefixtures("cuda_build")
@pytest.mark.parametrize(
    ("driver", "device_id", "problem"),
    [
        (FakeDriver(), 0, None),
        (FakeDriver(count=2), 1, None),
        (FakeDriver(count=2), 2, "finds 2 GPUs, and --device-id is 2"),
        (FakeDriver(count=0), 0, "finds 0 GPUs"),
        (FakeDriver(init=100), 0, "no usable GPU (cuInit returned 100)"),
    ],
)
def test_the_driver_reports_the_gpus(
    driver: FakeDriver, device_id: int, problem: str | None
) -> None:
    found = device.cuda_problem(device_id, lambda name: driver)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found


@pytest.mark.usefixtures("cuda_build")
def test_a_missing_driver_is_reported() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    problem = device.cuda_problem(0, missing)
    assert problem is not None
    assert "no NVIDIA driver" in problem


def test_the_settings_reach_the_device() -> None:
    """TF32 differs from the golden outputs by about 1e-3; only TF32 has a larger tolerance."""
    assert (CUDA.options["use_tf32"], CUDA.tolerance) == ("0", 0.0)
    assert (CUDA.io_binding, CUDA.cuda_graphs, CUDA.buckets[-1]) == (True, False, 64)
    chosen = CudaOptions(device_id=1, tf32=True, cuda_graphs=True)
    other = cuda_device(chosen, 3)
    assert (other.options["use_tf32"], other.tolerance) == ("1", device.TF32_TOLERANCE)
    assert (other.device_id, other.cuda_graphs, other.buckets) == (1, True, (1, 2, 3))
    assert not cuda_device(CudaOptions(io_binding=False), 3).io_binding


def test_cuda_keeps_the_cpu_for_shape_arithmetic_and_comes_first() -> None:
    (provider, options), second = CUDA.providers
    assert (provider, options) == (CUDA_PROVIDER, CUDA.options)
    assert second == CPU_PROVIDER


def test_a_session_that_fell_back_to_the_cpu_is_refused() -> None:
    session = FakeSession([CPU_PROVIDER], [FakePart(CPU_PROVIDER, ["Gemm"])])
    with pytest.raises(DeviceUnavailable) as refused:
        device.check_session(session, CUDA)
    assert f"{CUDA_PROVIDER} was requested" in str(refused.value)
    assert f"on {CPU_PROVIDER}" in str(refused.value)
    assert "--device cpu" in str(refused.value)


@pytest.mark.parametrize(
    "stray",
    ["Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "NhwcFusedConv", "Sigmoid", "Resize"],
)
def test_a_compute_node_on_the_cpu_is_refused_by_its_name(stray: str) -> None:
    session = FakeSession(
        [CUDA_PROVIDER, CPU_PROVIDER],
        [FakePart(CUDA_PROVIDER, ["Conv", "Relu"]), FakePart(CPU_PROVIDER, ["Shape", stray])],
    )
    with pytest.raises(DeviceUnavailable) as refused:
        device.check_session(session, CUDA)
    assert stray in str(refused.value)
    assert "Shape" not in str(refused.value)


def test_shape_nodes_and_casts_may_stay_on_the_cpu() -> None:
    """A float16 graph has a cast at each end."""
    session = FakeSession(
        [CUDA_PROVIDER, CPU_PROVIDER],
        [
            FakePart(CUDA_PROVIDER, ["Conv", "Gemm"]),
            FakePart(CPU_PROVIDER, ["Cast", "Shape", "Gather", "Concat", "Unsqueeze"]),
        ],
    )
    device.check_session(session, CUDA)


def test_a_session_for_the_cpu_may_run_everything_there() -> None:
    device.check_session(FakeSession([CPU_PROVIDER], [FakePart(CPU_PROVIDER, ["Gemm"])]), CPU)


def test_at_least_one_core_is_usable() -> None:
    assert device.usable_cores() >= 1


@pytest.mark.parametrize(
    ("wanted", "workers", "models", "threads"),
    [(3, 4, 4, 3), (0, 1, 1, 12), (0, 2, 1, 6), (0, 2, 3, 2), (0, 64, 5, 1), (0, 1, 0, 12)],
)
def test_the_cores_are_divided_among_workers_and_models(
    monkeypatch: pytest.MonkeyPatch, wanted: int, workers: int, models: int, threads: int
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 12)
    assert device.engine_threads(wanted, workers=workers, models=models) == threads
