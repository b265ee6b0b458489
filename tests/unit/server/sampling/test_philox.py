"""Comparison of the generator with an independent implementation of docs/sampling.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latentserve_server.sampling import philox
from reference_draw import normal_row, philox_block


def test_the_reference_philox_gives_the_known_values_of_random123() -> None:
    assert philox_block(0, 0, 0) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 1, 12345, philox.MAX_OFFSET])
def test_rows_match_the_specification(dim: int, seed: int, offset: int) -> None:
    rows = philox.standard_normal(seed, philox.PRIOR, offset=offset, rows=3, dim=dim)
    expected = [normal_row(seed, philox.PRIOR, offset + k, dim) for k in range(3)]
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.array(expected, dtype=np.float32), rtol=2e-7, atol=1e-37)


def test_a_row_does_not_depend_on_the_rows_sampled_with_it() -> None:
    whole = philox.standard_normal(9, philox.PRIOR, offset=0, rows=100, dim=7)
    generator = np.random.default_rng(0)
    for _ in range(50):
        start = int(generator.integers(0, 100))
        rows = int(generator.integers(1, 101 - start))
        part = philox.standard_normal(9, philox.PRIOR, offset=start, rows=rows, dim=7)
        assert part.tobytes() == whole[start : start + rows].tobytes()


def test_seeds_and_domains_give_different_rows() -> None:
    draws = {
        philox.standard_normal(seed, domain, offset=0, rows=1, dim=4).tobytes()
        for seed in (0, 1)
        for domain in (philox.PRIOR, philox.POSTERIOR)
    }
    assert len(draws) == 4


def test_the_temperature_scales_the_values() -> None:
    one = philox.standard_normal(3, philox.PRIOR, offset=0, rows=4, dim=8)
    half = philox.standard_normal(3, philox.PRIOR, offset=0, rows=4, dim=8, temperature=0.5)
    none = philox.standard_normal(3, philox.PRIOR, offset=0, rows=4, dim=8, temperature=0.0)
    np.testing.assert_array_equal(half, one * np.float32(0.5))
    assert not none.any()


def test_values_are_standard_normal() -> None:
    values = philox.standard_normal(1, philox.PRIOR, offset=0, rows=50_000, dim=4).ravel()
    # Five standard errors of each moment at 200,000 values.
    assert abs(values.mean()) < 5 / math.sqrt(values.size)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / values.size)
    assert abs((np.abs(values) < 1.959964).mean() - 0.95) < 5 * math.sqrt(0.0475 / values.size)


@pytest.mark.parametrize("offset", [0, 1, philox.MAX_OFFSET])
def test_uniform_numbers_match_the_specification(offset: int) -> None:
    found = philox.uniform(2**64 - 1, philox.MIXTURE, offset=offset, rows=7)
    expected = [
        (philox_block(offset + row, 2**64 - 1, philox.MIXTURE)[0] >> 11) / 2**53 for row in range(7)
    ]
    assert found.tolist() == expected


def test_the_normal_stream_is_the_one_that_was_published() -> None:
    """The bits of a row of the first release: a change breaks clients."""
    row = philox.standard_normal(7, philox.PRIOR, offset=5, rows=1, dim=3)
    assert row.tobytes().hex() == "b33a15c061d8bcbe4d0650bf"
