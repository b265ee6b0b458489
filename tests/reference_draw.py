"""Reference implementation of docs/sampling.md in plain Python: slow, independent of our code.

Tests compare the samples of the server and of the training with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

PRIOR, POSTERIOR, MIXTURE = 0, 1, 2
MASK = 2**64 - 1
Matrix = Sequence[Sequence[float]]


def philox_block(counter: int, seed: int, domain: int) -> list[int]:
    """Philox 4x64-10 (Salmon et al. 2011) in plain integers."""
    c = [(counter >> (64 * i)) & MASK for i in range(4)]
    k = [seed, domain]
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(high >> 64) ^ c[1] ^ k[0], high & MASK, (low >> 64) ^ c[3] ^ k[1], low & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def normal_row(
    seed: int, domain: int, index: int, dim: int, temperature: float = 1.0
) -> list[float]:
    """Return one row of standard-normal values times the temperature, not rounded to float32."""
    blocks = -(-dim // 4)
    values: list[float] = []
    for block in range(index * blocks, (index + 1) * blocks):
        words = philox_block(block, seed, domain)
        for a, b in (words[:2], words[2:]):
            u, v = ((a >> 11) + 1) / 2**53, (b >> 11) / 2**53
            radius = math.sqrt(-2.0 * math.log(u))
            values += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return [value * temperature for value in values[:dim]]


def component_of(weights: Sequence[float], seed: int, index: int) -> int:
    """Return the component of a mixture for one row."""
    u = (philox_block(index, seed, MIXTURE)[0] >> 11) / 2**53
    cumulative = 0.0
    for component, weight in enumerate(weights):
        cumulative += weight
        if cumulative > u:
            return component
    return len(weights) - 1


def mixture_row(
    weights: Sequence[float],
    means: Matrix,
    factors: Sequence[Matrix],
    seed: int,
    index: int,
    temperature: float = 1.0,
) -> list[float]:
    """Return one row of latents of a Gaussian mixture, rounded to float32."""
    component = component_of(weights, seed, index)
    mean, factor = means[component], factors[component]
    dim = len(mean)
    noise = [float(np.float32(value)) for value in normal_row(seed, PRIOR, index, dim)]
    latents = []
    for i in range(dim):
        deviation = 0.0
        for j in range(i + 1):
            deviation += float(factor[i][j]) * noise[j]
        latents.append(float(np.float32(float(mean[i]) + temperature * deviation)))
    return latents
