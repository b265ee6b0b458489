"""CUDA settings and the options of ONNX Runtime's CUDA provider.

This module neither loads ONNX Runtime nor looks for a GPU. The option names and defaults are those
of ONNX Runtime's CUDA provider.
"""

from __future__ import annotations

from dataclasses import dataclass

CONV_SEARCHES = ("heuristic", "exhaustive", "default")
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class CudaOptions:
    """CUDA settings of the operator.

    Attributes:
        device_id: index of the GPU in the driver, from 0.
        mem_limit_mb: limit of the memory arena of each graph, in MiB; 0: no limit.
        tf32: multiply with mantissas of 10 bits instead of 23.
        prefer_nhwc: run convolutions channels-last.
        conv_search: how to choose cuDNN's convolution algorithm, one of CONV_SEARCHES.
        io_binding: keep input and output buffers on the GPU.
        cuda_graphs: capture one CUDA graph for each operation and bucket of rows.
    """

    device_id: int = 0
    mem_limit_mb: int = 0
    tf32: bool = False
    prefer_nhwc: bool = False
    conv_search: str = "heuristic"
    io_binding: bool = True
    cuda_graphs: bool = False

    def describe(self) -> str:
        """Return the settings as one line for the log."""
        return (
            f"GPU {self.device_id}, arena limit {self.mem_limit_mb or 'none'}"
            f"{' MiB' if self.mem_limit_mb else ''}, TF32 {_yes(self.tf32)}, "
            f"NHWC {_yes(self.prefer_nhwc)}, convolution search {self.conv_search}, "
            f"IO binding {_yes(self.io_binding)}, CUDA graphs {_yes(self.cuda_graphs)}"
        )


def provider_options(chosen: CudaOptions) -> dict[str, str]:
    """Return the options of CUDAExecutionProvider; it parses them from strings."""
    options = {
        "device_id": str(chosen.device_id),
        # Grow by the requested size, not to the next power of two: then the warm-up at the largest
        # batch brings the arena to its final size (microsoft/onnxruntime#11627).
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE, ONNX Runtime's default, searches again for each batch size (#7612, #6978).
        "cudnn_conv_algo_search": chosen.conv_search.upper(),
        # The fastest algorithms need large workspaces, which are allocated from the arena: with a
        # limit these allocations would fail first (#16307).
        "cudnn_conv_use_max_workspace": _flag(not chosen.mem_limit_mb),
        # With 0, copies may run before the computation has finished (#4829).
        "do_copy_in_default_stream": "1",
        # TF32 differs from float32 by about 1e-3, above the golden tolerance.
        "use_tf32": _flag(chosen.tf32),
        "prefer_nhwc": _flag(chosen.prefer_nhwc),
        "enable_cuda_graph": _flag(chosen.cuda_graphs),
    }
    if chosen.mem_limit_mb:
        options["gpu_mem_limit"] = str(chosen.mem_limit_mb * _MEBIBYTE)
    return options


def batch_buckets(max_batch_rows: int) -> tuple[int, ...]:
    """Return the batch sizes that get buffers: 1, 2, 4, ... and `max_batch_rows`."""
    powers = [1 << bit for bit in range((max_batch_rows - 1).bit_length())]
    return (*powers, max_batch_rows)


def bucket_of(rows: int, buckets: tuple[int, ...]) -> int:
    """Return the smallest bucket that `rows` fit into; raises ValueError if there is none."""
    for bucket in buckets:
        if rows <= bucket:
            return bucket
    raise ValueError(f"{rows} rows do not fit into a bucket of {max(buckets, default=0)}")


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
