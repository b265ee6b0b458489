"""The check over bits agrees with `isfinite` for every kind of value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentserve_server.batching.finite import all_finite

bits = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x80000000, 0xFF7FFFFF, 0xFF800000]),
)


@given(st.lists(bits, min_size=1, max_size=6))
def test_the_check_agrees_with_isfinite(values: list[int]) -> None:
    array = np.array(values, dtype=np.uint32).view(np.float32)
    assert all_finite(array) == bool(np.isfinite(array).all())


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_other_types_and_shapes_are_checked_too(dtype: str) -> None:
    array = np.zeros((2, 3, 4), dtype=dtype)
    assert all_finite(array)
    assert all_finite(array[:0])
    array[1, 2, 3] = -np.inf
    assert not all_finite(array)
    assert all_finite(array[:, :, :3])
