"""CUDA settings of the operator become options of ONNX Runtime's CUDA provider."""

from __future__ import annotations

import pytest

from latentserve_server.engine.cuda_options import (
    CudaOptions,
    batch_buckets,
    bucket_of,
    provider_options,
)

DEFAULTS = {
    "device_id": "0",
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
    "use_tf32": "0",
    "prefer_nhwc": "0",
    "enable_cuda_graph": "0",
}


def test_the_defaults_are_full_float32_and_no_search_for_every_batch_size() -> None:
    assert provider_options(CudaOptions()) == DEFAULTS


@pytest.mark.parametrize(
    ("chosen", "changed"),
    [
        (CudaOptions(device_id=3), {"device_id": "3"}),
        (CudaOptions(tf32=True), {"use_tf32": "1"}),
        (CudaOptions(prefer_nhwc=True), {"prefer_nhwc": "1"}),
        (CudaOptions(cuda_graphs=True), {"enable_cuda_graph": "1"}),
        (CudaOptions(conv_search="exhaustive"), {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
        (CudaOptions(conv_search="default"), {"cudnn_conv_algo_search": "DEFAULT"}),
        (
            CudaOptions(mem_limit_mb=512),
            {"gpu_mem_limit": str(512 * 2**20), "cudnn_conv_use_max_workspace": "0"},
        ),
        (CudaOptions(io_binding=False), {}),  # not an option of the provider
    ],
)
def test_every_choice_changes_its_own_options_alone(
    chosen: CudaOptions, changed: dict[str, str]
) -> None:
    assert provider_options(chosen) == DEFAULTS | changed


def test_the_log_line_names_every_choice() -> None:
    line = CudaOptions(2, 512, True, True, "exhaustive", True, True).describe()
    assert line == (
        "GPU 2, arena limit 512 MiB, TF32 yes, NHWC yes, convolution search exhaustive, "
        "IO binding yes, CUDA graphs yes"
    )
    assert "arena limit none," in CudaOptions().describe()


@pytest.mark.parametrize(
    ("max_batch_rows", "buckets"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (48, (1, 2, 4, 8, 16, 32, 48)),
        (64, (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_buckets_double_and_end_at_the_largest_batch(
    max_batch_rows: int, buckets: tuple[int, ...]
) -> None:
    assert batch_buckets(max_batch_rows) == buckets


def test_a_batch_goes_into_the_smallest_bucket_that_holds_it() -> None:
    buckets = batch_buckets(12)
    found = {rows: bucket_of(rows, buckets) for rows in range(13)}
    assert found == {0: 1, 1: 1, 2: 2, 3: 4, 4: 4} | dict.fromkeys(range(5, 9), 8) | dict.fromkeys(
        range(9, 13), 12
    )


def test_rows_that_no_bucket_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="13 rows do not fit into a bucket of 12"):
        bucket_of(13, batch_buckets(12))
