"""Tells ONNX Runtime's failures for want of memory from all others.

ONNX Runtime has no class or code of its own for them, only texts (microsoft/onnxruntime#16307).
"""

from __future__ import annotations

import re

_TEXTS = re.compile(
    "|".join(
        (
            # BFCArena::AllocateRawInternal: the device has no more, or the limit is reached.
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
    """Whether the device, or the host, had no memory for what was run."""
    return isinstance(error, MemoryError) or _TEXTS.search(str(error)) is not None
