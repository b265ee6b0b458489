"""Reference sampler of latents as specified in docs/sampling.md, in plain Python.

An export stores a few of these latents with their decoded images, and the server, which has a
separate implementation, must reproduce them before it serves the model. Slow: half a millisecond
per row.
"""

import math
from collections.abc import Sequence

import numpy as np

from latentserve_training.nn.gaussian_mixture import LatentMixture

PRIOR_DOMAIN = 0
MIXTURE_DOMAIN = 2
WORD_MASK = 2**64 - 1
# Philox 4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL_CONSTANTS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10


def sample_latents(seed: int, count: int, dim: int, mixture: LatentMixture | None) -> np.ndarray:
    """Latents of Sample for rows 0 to ``count`` - 1 at temperature 1, float32 ``[count, dim]``.

    Args:
        seed: 0 to 2^64 − 1.
        count: Number of rows.
        dim: Values in a row.
        mixture: The prior of the model; None for a standard normal prior.
    """
    rows = [normal_row(seed, row, dim) for row in range(count)]
    if mixture is not None:
        rows = [mixture_row(seed, row, noise, mixture) for row, noise in enumerate(rows)]
    return np.array(rows, dtype=np.float32)


def normal_row(seed: int, row: int, dim: int) -> list[float]:
    """Standard normal values by Box and Muller 1958, each rounded to float32."""
    blocks = math.ceil(dim / 4)
    values: list[float] = []
    for block in range(row * blocks, (row + 1) * blocks):
        a, b, c, d = philox(block, seed, PRIOR_DOMAIN)
        for first, second in ((a, b), (c, d)):
            radius = math.sqrt(-2.0 * math.log(((first >> 11) + 1) / 2**53))
            angle = 2.0 * math.pi * ((second >> 11) / 2**53)
            values += [radius * math.cos(angle), radius * math.sin(angle)]
    return [float(np.float32(value)) for value in values[:dim]]


def mixture_row(seed: int, row: int, noise: Sequence[float], mixture: LatentMixture) -> list[float]:
    """μ_k + L_k ε, with the component k selected by the uniform number of the row."""
    uniform = (philox(row, seed, MIXTURE_DOMAIN)[0] >> 11) / 2**53
    cumulative, component = 0.0, mixture.components - 1
    for index, weight in enumerate(mixture.weights.tolist()):
        cumulative += weight
        if cumulative > uniform:
            component = index
            break
    mean, factor = mixture.means[component].tolist(), mixture.factors[component].tolist()
    latents = []
    for latent_mean, factor_row in zip(mean, factor, strict=True):
        deviation = 0.0
        for weight, value in zip(factor_row, noise, strict=True):
            deviation += weight * value
        latents.append(latent_mean + deviation)
    return latents


def philox(counter: int, seed: int, domain: int) -> tuple[int, int, int, int]:
    """The four 64-bit words of a counter, with the key (seed, domain)."""
    a, b, c, d = ((counter >> shift) & WORD_MASK for shift in (0, 64, 128, 192))
    key, other_key = seed, domain
    for _ in range(ROUNDS):
        left, right = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            (right >> 64) ^ b ^ key,
            right & WORD_MASK,
            (left >> 64) ^ d ^ other_key,
            left & WORD_MASK,
        )
        key = (key + WEYL_CONSTANTS[0]) & WORD_MASK
        other_key = (other_key + WEYL_CONSTANTS[1]) & WORD_MASK
    return a, b, c, d
