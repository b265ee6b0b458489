"""Counter-based random number generator for standard-normal rows and uniform numbers.

Row r of a stream depends only on (seed, domain, r) and the length of the row. So it is the same in
every batch, worker and machine, and a client in any language can compute it. docs/sampling.md is
the specification; in short:

* Generator: Philox 4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
  1, 2, 3"), key = (seed, domain). Block c is its output for the 256-bit counter c: four
  64-bit words.
* A row of d values uses ceil(d / 4) blocks; row r starts at block r * ceil(d / 4).
* Box-Muller on words (a, b), then (c, d) of each block, in float64:
  u = ((a >> 11) + 1) / 2^53 in (0, 1], v = (b >> 11) / 2^53 in [0, 1),
  sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v).
* The values are multiplied by the temperature in float64, then rounded to float32.
* A uniform number uses one block per row: for row r, block r gives (a >> 11) / 2^53 in [0, 1).
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

PRIOR = 0
"""Domain of the latents of Sample."""
POSTERIOR = 1
"""Domain of the noise of Encode with a seed."""
MIXTURE = 2
"""Domain of the uniform numbers that choose a component of a mixture."""

MAX_OFFSET = 2**62
"""Maximum offset (first row) of a request."""

_WORDS_PER_BLOCK = 4
_TWO_TO_MINUS_53 = 2.0**-53
_COUNTERS = 2**256


def fresh_seed() -> int:
    """Return a seed from the operating system's entropy, 0 to 2^64 - 1."""
    return secrets.randbits(64)


def standard_normal(
    seed: int, domain: int, *, offset: int, rows: int, dim: int, temperature: float = 1.0
) -> NDArray[np.float32]:
    """Return rows `offset` to `offset + rows - 1` of a stream, float32 [rows, dim].

    `seed` is 0 to 2^64 - 1, `domain` is PRIOR or POSTERIOR. Every value is multiplied by
    `temperature`.
    """
    blocks = -(-dim // _WORDS_PER_BLOCK)
    words = _words(seed, domain, offset * blocks, rows * blocks).reshape(-1, 2)
    u = ((words[:, 0] >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * _TWO_TO_MINUS_53
    v = (words[:, 1] >> np.uint64(11)).astype(np.float64) * _TWO_TO_MINUS_53
    radius = np.sqrt(-2.0 * np.log(u))
    angle = (2.0 * np.pi) * v
    normal = np.empty((len(words), 2), dtype=np.float64)
    np.multiply(radius, np.cos(angle), out=normal[:, 0])
    np.multiply(radius, np.sin(angle), out=normal[:, 1])
    normal *= temperature
    return normal.reshape(rows, blocks * _WORDS_PER_BLOCK)[:, :dim].astype(np.float32)


def uniform(seed: int, domain: int, *, offset: int, rows: int) -> NDArray[np.float64]:
    """Return the numbers of rows `offset` to `offset + rows - 1`, in [0, 1), float64 [rows]."""
    words = _words(seed, domain, offset, rows)[::_WORDS_PER_BLOCK]
    return (words >> np.uint64(11)).astype(np.float64) * _TWO_TO_MINUS_53


def _words(seed: int, domain: int, first_block: int, blocks: int) -> NDArray[np.uint64]:
    # numpy increments the counter before it computes a block, hence the - 1.
    generator = np.random.Philox(
        counter=(first_block - 1) % _COUNTERS, key=np.array([seed, domain], dtype=np.uint64)
    )
    return generator.random_raw(blocks * _WORDS_PER_BLOCK)
