"""What the operator may choose for CUDA, and what ONNX Runtime is told for it.

Pure: it neither loads ONNX Runtime nor looks for a GPU. The names and defaults of the options are
those of ONNX Runtime's CUDA provider.
"""

from __future__ import annotations

from dataclasses import dataclass

CONV_SEARCHES = ("heuristic", "exhaustive", "default")
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class CudaOptions:
    """The choices for CUDA.

    Attributes:
        device_id: which GPU, counted by the driver from 0.
        mem_limit_mb: of the memory arena of each graph, in MiB; 0: all that there is.
        tf32: multiply with 10-bit mantissas in place of 23.
        prefer_nhwc: run convolutions channels-last.
        conv_search: how cuDNN's convolution algorithm is found, one of CONV_SEARCHES.
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
        """Return the choices in one line for the log."""
        return (
            f"GPU {self.device_id}, arena limit {self.mem_limit_mb or 'none'}"
            f"{' MiB' if self.mem_limit_mb else ''}, TF32 {_yes(self.tf32)}, "
            f"NHWC {_yes(self.prefer_nhwc)}, convolution search {self.conv_search}, "
            f"IO binding {_yes(self.io_binding)}, CUDA graphs {_yes(self.cuda_graphs)}"
        )


def provider_options(chosen: CudaOptions) -> dict[str, str]:
    """Return the options of CUDAExecutionProvider, as strings, the way it parses them."""
    options = {
        "device_id": str(chosen.device_id),
        # Grow by what is needed, not to the next power of two: the warm-up at the largest
        # batch then leaves the arena at its final size (microsoft/onnxruntime#11627).
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE, ONNX Runtime's default, searches anew for every batch size (#7612, #6978).
        "cudnn_conv_algo_search": chosen.conv_search.upper(),
        # The fastest algorithms want large workspaces, which come out of the arena: with a limit
        # they would be the first to fail (#16307).
        "cudnn_conv_use_max_workspace": _flag(not chosen.mem_limit_mb),
        # 0 lets copies overtake the computation (#4829).
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
    """Return the batch sizes that buffers are made for: 1, 2, 4, ... and `max_batch_rows`."""
    powers = [1 << bit for bit in range((max_batch_rows - 1).bit_length())]
    return (*powers, max_batch_rows)


def bucket_of(rows: int, buckets: tuple[int, ...]) -> int:
    """Return the smallest bucket that `rows` fit into; raises ValueError where none is."""
    for bucket in buckets:
        if rows <= bucket:
            return bucket
    raise ValueError(f"{rows} rows do not fit into a bucket of {max(buckets, default=0)}")


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
