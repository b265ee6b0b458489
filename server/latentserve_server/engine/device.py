"""Device selection: CPU or CUDA, and checks that sessions run on it.

On a machine without CUDA, ONNX Runtime falls back to a CPU session and writes a log line. This
module turns that into an error, because a slow server that looks healthy is worse than none.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnxruntime

from latentserve_server.engine.cuda_options import CudaOptions, batch_buckets, provider_options
from latentserve_server.errors import DeviceUnavailable

log = logging.getLogger(__name__)

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

# Shape arithmetic and casts may run on the CPU; these operators do the computation.
COMPUTE_NODES = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul"),
        *("FusedConv", "FusedGemm", "FusedMatMul", "NhwcConv", "NhwcFusedConv"),
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization"),
        *("LayerNormalization", "SkipLayerNormalization", "GroupNorm"),
        *("AveragePool", "GlobalAveragePool", "MaxPool", "Resize", "Upsample"),
        *("Elu", "Gelu", "LeakyRelu", "PRelu", "QuickGelu", "Relu", "Sigmoid", "Softplus", "Tanh"),
    }
)

TF32_TOLERANCE = 5e-3
"""Minimum golden tolerance with TF32. Its mantissa is that of float16; rounding the weights to
float16 changes the golden outputs of the shipped models by at most 3.9e-3."""


@dataclass(frozen=True)
class Device:
    """An execution provider and its options.

    Attributes:
        name: ONNX Runtime's name for the memory of the device, `cpu` or `cuda`.
        provider: the execution provider.
        options: options of the execution provider.
        device_id: index of the GPU.
        io_binding: whether batches run on buffers that stay on the device.
        cuda_graphs: whether batches are padded to a bucket and run as CUDA graphs.
        buckets: batch sizes that have buffers and CUDA graphs, ascending.
        tolerance: minimum tolerance of golden outputs; the manifest's applies if it is larger.
    """

    name: str
    provider: str
    options: dict[str, str]
    device_id: int = 0
    io_binding: bool = False
    cuda_graphs: bool = False
    buckets: tuple[int, ...] = ()
    tolerance: float = 0.0

    @property
    def providers(self) -> list[Any]:
        """The `providers` argument of an InferenceSession."""
        if self.provider == CPU_PROVIDER:
            return [CPU_PROVIDER]
        # The CPU provider is needed for shape nodes, which CUDA does not run.
        return [(self.provider, self.options), CPU_PROVIDER]


CPU = Device("cpu", CPU_PROVIDER, {})


def cuda_device(chosen: CudaOptions, max_batch_rows: int) -> Device:
    """Return the CUDA device with these settings, for batches of at most `max_batch_rows`."""
    return Device(
        "cuda",
        CUDA_PROVIDER,
        provider_options(chosen),
        device_id=chosen.device_id,
        io_binding=chosen.io_binding,
        cuda_graphs=chosen.cuda_graphs,
        buckets=batch_buckets(max_batch_rows),
        tolerance=TF32_TOLERANCE if chosen.tf32 else 0.0,
    )


def choose_device(
    wanted: str, chosen: CudaOptions | None = None, *, max_batch_rows: int = 64
) -> Device:
    """Return the device for `auto`, `cpu` or `cuda`, with the settings for CUDA.

    Raises DeviceUnavailable for `cuda` if this machine or this installation does not support it.
    `auto` chooses CUDA if it is available, and logs its choice.
    """
    if wanted == "cpu":
        return CPU
    chosen = chosen or CudaOptions()
    if (problem := cuda_problem(chosen.device_id)) is None:
        # The libraries are part of the wheel; without this call the loader does not find them.
        onnxruntime.preload_dlls()
        if wanted == "auto":
            log.info("--device auto: found an NVIDIA GPU; the models run on it")
        device = cuda_device(chosen, max_batch_rows)
        log.info("CUDA: %s; provider options %s", chosen.describe(), device.options)
        return device
    if wanted == "cuda":
        raise DeviceUnavailable(
            f"--device cuda is not available: {problem}. Use --device cpu to run on the CPU"
        )
    ignored = "" if chosen == CudaOptions() else "; the settings for CUDA have no effect"
    log.warning("--device auto: the models run on the CPU, because %s%s", problem, ignored)
    return CPU


def cuda_problem(
    device_id: int = 0, load_library: Callable[[str], Any] = ctypes.CDLL
) -> str | None:
    """Return why CUDA cannot use this GPU, None if it can."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"onnxruntime {onnxruntime.__version__} is a build without CUDA "
            "(for one with CUDA: pip install 'latentserve-server[gpu]' in place of [cpu])"
        )
    try:
        driver = load_library("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1 was not found)"
    if (code := driver.cuInit(0)) != 0:
        return f"the NVIDIA driver finds no usable GPU (cuInit returned {code})"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    if device_id >= count.value:
        return f"the NVIDIA driver finds {count.value} GPUs, and --device-id is {device_id}"
    return None


def check_session(session: Any, device: Device) -> None:
    """Check that `session` runs on `device`; raises DeviceUnavailable if it does not."""
    if device.provider == CPU_PROVIDER:
        return
    running = session.get_providers()
    if running[0] != device.provider:
        raise DeviceUnavailable(
            f"{device.provider} was requested, but ONNX Runtime runs the model on {running[0]}: "
            "its log above names the missing library. Check the driver (580 or newer for "
            "CUDA 13) and that onnxruntime-gpu is installed with [cuda,cudnn], "
            "or use --device cpu"
        )
    misplaced = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != device.provider
        for node in part.get_nodes()
        if node.op_type in COMPUTE_NODES
    }
    if misplaced:
        raise DeviceUnavailable(
            f"{device.provider} was requested, but these nodes run elsewhere: {sorted(misplaced)}"
        )


def engine_threads(wanted: int, *, workers: int, models: int) -> int:
    """Return the threads of one model's engine: `wanted`, or an equal part of the cores for 0."""
    return wanted or max(1, usable_cores() // max(1, workers) // max(1, models))


def usable_cores() -> int:
    """Return the number of cores that this process may use, limited by its cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123 - a kernel file
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cores or 1
    if quota == "max":
        return cores or 1
    return max(1, min(cores or 1, int(quota) // int(period)))
