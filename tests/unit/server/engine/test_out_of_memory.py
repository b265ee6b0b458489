"""Out-of-memory errors are distinguished from other errors of the engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

import tiny_models
from latentserve_server.engine.device import CPU, CPU_PROVIDER, Device
from latentserve_server.engine.io_binding import IoBindingEngine
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.engine.out_of_memory import is_out_of_memory
from latentserve_server.engine.session import open_session
from latentserve_server.errors import EngineFailure, ManifestError, OutOfMemory
from latentserve_server.manifest.reader import read_manifest

ARENA = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. "
    "Name:'relu' Status Message: bfc_arena.cc:360 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
)
CUDA_CALL = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : cuda_call.cc:129 onnxruntime::CudaCall "
NO_MEMORY = {
    "the arena finds no more": Fail(
        f"{ARENA}Failed to allocate memory for requested buffer of size 3763200000"
    ),
    "the arena is at its limit": Fail(
        f"{ARENA}Available memory of 588032 is smaller than requested bytes of 602112"
    ),
    "CUDA": RuntimeException(f"{CUDA_CALL}CUDA failure 2: out of memory ; GPU=0 ; hostname=h"),
    "cuBLAS": RuntimeException(f"{CUDA_CALL}CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"),
    "cuDNN 8": RuntimeException(f"{CUDA_CALL}CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0"),
    "cuDNN 9": RuntimeException(
        f"{CUDA_CALL}CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    ),
    "a copy to the device": RuntimeError(
        "bfc_arena.cc Failed to allocate memory for requested buffer of size 8"
    ),
    "C++": RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
    "Python": MemoryError(),
}
ANOTHER_REASON = {
    "a wrong shape": InvalidArgument("Got invalid dimensions for input: images. Got: 5"),
    "an illegal access": RuntimeException(
        f"{CUDA_CALL}CUDA failure 700: an illegal memory access was encountered ; GPU=0"
    ),
    "cuBLAS fails": RuntimeException(
        f"{CUDA_CALL}CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED"
    ),
    "a capture": RuntimeException(
        f"{CUDA_CALL}CUDA failure 901: operation failed due to a previous error during capture"
    ),
    "a node": Fail("Non-zero status code returned while running Gather node. indices out of range"),
    "no text": RuntimeError(),
}


class FailingSession:
    """A real session whose runs raise `error`."""

    def __init__(self, session: Any, error: Exception) -> None:
        self._session = session
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Sequence[str], feeds: dict[str, Any]) -> None:
        raise self._error

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        raise self._error

    def io_binding(self) -> Any:
        return self._session.io_binding()


BOUND = Device("cpu", CPU_PROVIDER, {}, io_binding=True, buckets=(1, 2, 4, 64))


def failing_engine(kind: type[OnnxEngine], folder: Path, error: Exception) -> OnnxEngine:
    return kind(
        read_manifest(folder),
        CPU if kind is OnnxEngine else BOUND,
        threads=1,
        opener=lambda *given: FailingSession(open_session(*given), error),
    )


each_kind = pytest.mark.parametrize("kind", [OnnxEngine, IoBindingEngine])


@each_kind
@pytest.mark.parametrize("case", NO_MEMORY)
def test_out_of_memory_has_its_own_error_that_names_the_rows(
    tmp_path: Path, case: str, kind: type[OnnxEngine]
) -> None:
    engine = failing_engine(kind, tiny_models.write_model(tmp_path, "tiny"), NO_MEMORY[case])
    with pytest.raises(OutOfMemory, match="no memory to reconstruct 3 rows") as failed:
        engine.run("reconstruct", [tiny_models.images(3)])
    assert failed.value.__cause__ is NO_MEMORY[case]
    assert isinstance(failed.value, EngineFailure)


@each_kind
@pytest.mark.parametrize("case", ANOTHER_REASON)
def test_other_errors_are_not_converted(tmp_path: Path, case: str, kind: type[OnnxEngine]) -> None:
    error = ANOTHER_REASON[case]
    engine = failing_engine(kind, tiny_models.write_model(tmp_path, "tiny"), error)
    with pytest.raises(type(error)) as failed:
        engine.run("reconstruct", [tiny_models.images(3)])
    assert failed.value is error
    assert not is_out_of_memory(error)


@each_kind
def test_a_model_whose_largest_batch_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, kind: type[OnnxEngine]
) -> None:
    engine = failing_engine(kind, tiny_models.write_model(tmp_path, "tiny"), NO_MEMORY["CUDA"])
    with pytest.raises(ManifestError, match="cannot be run with 64 rows: no memory to"):
        engine.warm_up((64,))
    with pytest.raises(ManifestError, match="the golden inputs cannot be run: no memory"):
        engine.check_golden()


# Real failures of ONNX Runtime's arena, here on the CPU: first at its limit, as set for a GPU by
# --gpu-mem-limit-mb, then on a host without free memory.
REAL = """
import resource, sys
import latentserve_server
import numpy, onnxruntime as ort
from latentserve_server.engine.out_of_memory import is_out_of_memory

def error_of(rows, entry):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", entry)
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    images = numpy.zeros((rows, 1, 4, 4), numpy.float32)
    try:
        session.run(None, {"images": images})
    except Exception as error:
        return error

memory = ort.OrtMemoryInfo(
    "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
)
arena = ort.OrtArenaCfg({"max_mem": 200_000, "arena_extend_strategy": 1})
ort.create_and_register_allocator(memory, arena)
assert error_of(2, "1") is None
limited = error_of(10_000, "1")
space = 2**30
resource.setrlimit(resource.RLIMIT_AS, (space, space))
full = error_of(8_000_000, "0")
for error in (limited, full):
    print(is_out_of_memory(error), repr(str(error)))
"""


def test_real_errors_of_onnx_runtime_are_recognised(tmp_path: Path) -> None:
    graph = tiny_models.write_model(tmp_path, "tiny") / "reconstruct.onnx"
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(graph)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    limited, full = done.stdout.splitlines()
    assert limited.startswith("True")
    assert "Available memory of" in limited
    assert full.startswith("True"), full
