"""Benchmark of the Python client: `bench.py --address HOST:PORT --model NAME`.

Reconstruct of one image: median time with one call in flight (sync client), and calls per second
with 32 calls in flight (asyncio client). Prints one line of JSON. Each client has the same program;
`clients/measure.py` runs them in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from latentserve_client import AsyncClient, Client

IN_FLIGHT = 32
WARM_UP_CALLS = 500
TIMEOUT_S = 10.0


def one_by_one_us(
    address: str, model: str, image: NDArray[np.float32], seconds: float
) -> list[float]:
    """Make calls one after the other; return the duration of each in microseconds."""
    times_us = []
    with Client(address, timeout_s=TIMEOUT_S) as client:
        for _ in range(WARM_UP_CALLS):
            client.reconstruct(image, model=model)
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            client.reconstruct(image, model=model)
            times_us.append((time.perf_counter() - started) * 1e6)
    return times_us


async def many_per_s(address: str, model: str, image: NDArray[np.float32], seconds: float) -> float:
    """Keep IN_FLIGHT calls in flight; return the calls per second."""
    async with AsyncClient(address, timeout_s=TIMEOUT_S) as client:
        await asyncio.gather(*(client.reconstruct(image, model=model) for _ in range(IN_FLIGHT)))
        started = time.perf_counter()
        calls = 0

        async def call_repeatedly() -> None:
            nonlocal calls
            while time.perf_counter() - started < seconds:
                await client.reconstruct(image, model=model)
                calls += 1

        await asyncio.gather(*(call_repeatedly() for _ in range(IN_FLIGHT)))
        return calls / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Benchmark of the Python client.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    settings = (arguments.address, arguments.model, image, arguments.seconds)
    p50_us = statistics.median(one_by_one_us(*settings))
    calls_per_s = asyncio.run(many_per_s(*settings))
    result = {"p50_us": round(p50_us, 1), "calls_per_s": round(calls_per_s, 1)}
    print(json.dumps({"language": "python", **result}))


if __name__ == "__main__":
    main()
