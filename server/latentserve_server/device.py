"""Chooses what the models run on, and checks that they really do.

ONNX Runtime answers a request for CUDA on a machine without it with a CPU session and a
log line. Here that is an error: a slow server that looks healthy is worse than none.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from typing import Any

import onnxruntime

from latentserve_server.errors import DeviceUnavailable

log = logging.getLogger(__name__)

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

# Shape arithmetic may stay on the CPU; these carry the work.
COMPUTE_NODES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm"})


@dataclass(frozen=True)
class Device:
    """An execution provider and its options."""

    name: str
    provider: str
    options: dict[str, str]

    @property
    def providers(self) -> list[Any]:
        """The `providers` argument of an InferenceSession."""
        if self.provider == CPU_PROVIDER:
            return [CPU_PROVIDER]
        # The CPU provider must be listed for the shape nodes that CUDA does not take.
        return [(self.provider, self.options), CPU_PROVIDER]


CPU = Device("cpu", CPU_PROVIDER, {})
CUDA = Device(
    "cuda",
    CUDA_PROVIDER,
    {
        "device_id": "0",
        # Grow by what is needed, not to the next power of two: the warm-up at the largest
        # batch then leaves the arena at its final size (microsoft/onnxruntime#11627).
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE, the default, searches anew for every batch size (#7612, #6978).
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 differs from float32 by about 1e-3, above the golden tolerance.
        "use_tf32": "0",
    },
)


def choose_device(wanted: str) -> Device:
    """Return the device for `auto`, `cpu` or `cuda`.

    Raises DeviceUnavailable where `cuda` is asked for and this machine or this
    installation has none. `auto` takes CUDA where it is there, and says what it chose.
    """
    if wanted == "cpu":
        return CPU
    if (problem := _cuda_problem()) is None:
        # The libraries come with the wheel; without this the loader does not find them.
        onnxruntime.preload_dlls()
        if wanted == "auto":
            log.info("--device auto: an NVIDIA GPU is there, the models run on it")
        return CUDA
    if wanted == "cuda":
        raise DeviceUnavailable(
            f"--device cuda cannot be kept: {problem}. Use --device cpu to run on the CPU"
        )
    log.warning("--device auto: the models run on the CPU, because %s", problem)
    return CPU


def _cuda_problem() -> str | None:
    """Say why CUDA cannot be used, or return None."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"onnxruntime {onnxruntime.__version__} is a build without CUDA "
            "(pip install 'latentserve-server[gpu]' in place of [cpu] brings one with it)"
        )
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1 is not there)"
    if (code := driver.cuInit(0)) != 0:
        return f"the NVIDIA driver finds no usable GPU (cuInit gives {code})"
    return None


def check_session(session: Any, device: Device) -> None:
    """Check that `session` runs on `device`; raises DeviceUnavailable where it does not."""
    if device.provider == CPU_PROVIDER:
        return
    running = session.get_providers()
    if running[0] != device.provider:
        raise DeviceUnavailable(
            f"{device.provider} was asked for, but ONNX Runtime runs the model on {running[0]}: "
            "its log above says which library is missing. Check the driver (580 or newer for "
            "CUDA 13) and that onnxruntime-gpu is installed with [cuda,cudnn], "
            "or use --device cpu"
        )
    stray = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != device.provider
        for node in part.get_nodes()
        if node.op_type in COMPUTE_NODES
    }
    if stray:
        raise DeviceUnavailable(
            f"{device.provider} was asked for, but these nodes run elsewhere: {sorted(stray)}"
        )


def engine_threads(wanted: int, *, workers: int, models: int) -> int:
    """Return the threads of one model's engine: `wanted`, or a fair share of the cores for 0."""
    return wanted or max(1, usable_cores() // max(1, workers) // max(1, models))


def usable_cores() -> int:
    """Return the cores that this process may use, a container's CPU quota included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123 - a kernel file
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cores or 1
    if quota == "max":
        return cores or 1
    return max(1, min(cores or 1, int(quota) // int(period)))
