"""Detects out-of-memory errors of ONNX Runtime.

ONNX Runtime has no exception class or error code for them, only texts
(microsoft/onnxruntime#16307).
"""

from __future__ import annotations

import re

_TEXTS = re.compile(
    "|".join(
        (
            # BFCArena::AllocateRawInternal: the device is full, or the arena is at its limit.
            "Failed to allocate memory for requested buffer of size",
            r"Available memory of \d+ is smaller than requested bytes of \d+",
            # CudaCall: "CUDA failure 2: out of memory ; GPU=0 ; hostname=...".
            "CUDA failure 2: out of memory",
            "cudaErrorMemoryAllocation",
            "CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_INTERNAL_ERROR_(?:DEVICE|HOST)_ALLOCATION_FAILED",
            "std::bad_alloc",
        )
    )
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` reports a lack of memory on the device or the host."""
    return isinstance(error, MemoryError) or _TEXTS.search(str(error)) is not None
