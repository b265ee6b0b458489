"""The generator against an implementation written from docs/sampling.md, not from numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latentserve_server import sampling

MASK = 2**64 - 1


def philox_block(counter: int, seed: int, domain: int) -> list[int]:
    """Philox 4x64-10 (Salmon et al. 2011) in plain integers."""
    c = [(counter >> (64 * i)) & MASK for i in range(4)]
    k = [seed, domain]
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(high >> 64) ^ c[1] ^ k[0], high & MASK, (low >> 64) ^ c[3] ^ k[1], low & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def row(seed: int, domain: int, index: int, dim: int, temperature: float = 1.0) -> list[float]:
    """One row by the specification."""
    blocks = -(-dim // 4)
    values: list[float] = []
    for block in range(index * blocks, (index + 1) * blocks):
        words = philox_block(block, seed, domain)
        for a, b in (words[:2], words[2:]):
            u, v = ((a >> 11) + 1) / 2**53, (b >> 11) / 2**53
            radius = math.sqrt(-2.0 * math.log(u))
            values += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return [value * temperature for value in values[:dim]]


def test_reference_philox_gives_the_known_answers_of_random123() -> None:
    assert philox_block(0, 0, 0) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 1, 12345, sampling.MAX_OFFSET])
def test_rows_are_what_the_specification_says(dim: int, seed: int, offset: int) -> None:
    rows = sampling.standard_normal(seed, sampling.PRIOR, offset=offset, rows=3, dim=dim)
    expected = [row(seed, sampling.PRIOR, offset + k, dim) for k in range(3)]
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.array(expected, dtype=np.float32), rtol=2e-7, atol=1e-37)


def test_a_row_does_not_depend_on_what_is_drawn_with_it() -> None:
    whole = sampling.standard_normal(9, sampling.PRIOR, offset=0, rows=100, dim=7)
    generator = np.random.default_rng(0)
    for _ in range(50):
        start = int(generator.integers(0, 100))
        rows = int(generator.integers(1, 101 - start))
        part = sampling.standard_normal(9, sampling.PRIOR, offset=start, rows=rows, dim=7)
        assert part.tobytes() == whole[start : start + rows].tobytes()


def test_seeds_and_domains_give_different_rows() -> None:
    draws = {
        sampling.standard_normal(seed, domain, offset=0, rows=1, dim=4).tobytes()
        for seed in (0, 1)
        for domain in (sampling.PRIOR, sampling.POSTERIOR)
    }
    assert len(draws) == 4


def test_temperature_multiplies() -> None:
    one = sampling.standard_normal(3, sampling.PRIOR, offset=0, rows=4, dim=8)
    half = sampling.standard_normal(3, sampling.PRIOR, offset=0, rows=4, dim=8, temperature=0.5)
    none = sampling.standard_normal(3, sampling.PRIOR, offset=0, rows=4, dim=8, temperature=0.0)
    np.testing.assert_array_equal(half, one * np.float32(0.5))
    assert not none.any()


def test_values_are_standard_normal() -> None:
    values = sampling.standard_normal(1, sampling.PRIOR, offset=0, rows=50_000, dim=4).ravel()
    # Five standard errors of each moment at 200,000 values.
    assert abs(values.mean()) < 5 / math.sqrt(values.size)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / values.size)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / values.size)
    assert abs((np.abs(values) < 1.959964).mean() - 0.95) < 5 * math.sqrt(0.0475 / values.size)
