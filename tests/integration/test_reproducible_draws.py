"""Promise 1: a row of a draw depends on seed, index and temperature, on nothing else.

A thousand calls in random order, of random counts, offsets and chunks, from many callers at once,
so that rows meet in batches as it happens: every row is what an independent implementation of
docs/sampling.md predicts, and the same in every batch, on every worker.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from reference_draw import PRIOR, mixture_row, normal_row
from served import Server, ref, served

CALLS = 1000
CALLERS = 8
CONNECTIONS = 16  # of several workers, each has some
MAX_ROWS = 8  # of a batch, which is less than a large call has
TIMEOUT_S = 30.0
ENGINE_S = 0.003  # long enough for callers to meet
IMAGE_TOLERANCE = 1e-4  # docs/sampling.md
FAR = 2**62 - 40
Floats = NDArray[np.float32]
Key = tuple[str, int, int, float]


@dataclass(frozen=True)
class Draw:
    """One call."""

    model: str
    seed: int
    offset: int
    count: int
    temperature: float
    chunk_rows: int | None  # None: Sample

    @classmethod
    def at_random(cls, chance: random.Random) -> Draw:
        """From few enough rows that most are drawn many times."""
        return cls(
            model=chance.choice(["tiny-vae", "tiny-mixture"]),
            seed=chance.choice([0, 2**64 - 1]),
            offset=chance.choice([0, FAR]) + chance.randrange(30),
            count=chance.randint(1, 12),
            temperature=chance.choice([1.0, 0.5]),
            chunk_rows=chance.choice([None, None, 1, 3, 5]),
        )


@functools.cache
def predicted(model: str, seed: int, index: int, temperature: float) -> Floats:
    if model == "tiny-vae":
        row = normal_row(seed, PRIOR, index, tiny_models.DIM, temperature)
    else:
        weights, means, factors = (
            array.tolist()
            for array in (tiny_models.WEIGHTS, tiny_models.MEANS, tiny_models.FACTORS)
        )
        row = mixture_row(weights, means, factors, seed, index, temperature)
    return np.array(row, np.float32)


class Seen:
    """What was given for each row, in the first batch that had it."""

    def __init__(self) -> None:
        self.latents: dict[Key, bytes] = {}
        self.images: dict[Key, Floats] = {}
        self.batch_rows: set[int] = set()
        self.met_others = 0

    def take(
        self,
        draw: Draw,
        offset: int,
        reply: pb.SampleResponse | pb.SampleStreamResponse,
    ) -> None:
        """Compare a reply with what is predicted, and with what others were given."""
        assert reply.seed == draw.seed
        latents = np.frombuffer(reply.latents.data, np.float32).reshape(-1, tiny_models.DIM)
        images = np.frombuffer(reply.images.tensor.data, np.float32)
        images = images.reshape(-1, 1, tiny_models.SIZE, tiny_models.SIZE)
        assert len(latents) == len(images)
        for place, (latent, image) in enumerate(zip(latents, images, strict=True)):
            key = (draw.model, draw.seed, offset + place, draw.temperature)
            # The reference computes logarithm and cosine by another library: see "How exact".
            if draw.model == "tiny-vae":
                np.testing.assert_array_max_ulp(latent, predicted(*key), maxulp=1)
            else:
                np.testing.assert_allclose(latent, predicted(*key), rtol=1e-6, atol=1e-6)
            assert self.latents.setdefault(key, latent.tobytes()) == latent.tobytes()
            first = self.images.setdefault(key, image)
            np.testing.assert_allclose(image, first, rtol=0, atol=IMAGE_TOLERANCE)
        np.testing.assert_allclose(images, tiny_models.decode(latents), atol=IMAGE_TOLERANCE)
        self.batch_rows.add(reply.timings.batch_rows)
        self.met_others += len(latents) < reply.timings.batch_rows


def call(stub: object, draw: Draw, seen: Seen) -> None:
    fields = {
        "model": ref(draw.model),
        "seed": draw.seed,
        "offset": draw.offset,
        "count": draw.count,
        "temperature": draw.temperature,
        "include_latents": True,
    }
    rows = 0
    if draw.chunk_rows is None:
        reply = stub.Sample(pb.SampleRequest(**fields), timeout=TIMEOUT_S)  # type: ignore[attr-defined]
        seen.take(draw, draw.offset, reply)
        rows = reply.latents.shape[0]
    else:
        request = pb.SampleStreamRequest(**fields, chunk_rows=draw.chunk_rows)
        for chunk in stub.SampleStream(request, timeout=TIMEOUT_S):  # type: ignore[attr-defined]
            assert chunk.offset == draw.offset + rows
            seen.take(draw, chunk.offset, chunk)
            rows += chunk.latents.shape[0]
    assert rows == draw.count


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def sampling_server(
    transport: str,
    tiny_exports: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Server]:
    log_path = tmp_path_factory.mktemp("draws") / "log.txt"
    flags: tuple[str, ...] = ("--max-batch-rows", str(MAX_ROWS))
    if request.param > 1:
        flags = (*flags, "--workers", str(request.param))
    with served(tiny_exports, log_path, *flags, delay_s=ENGINE_S) as running:
        yield running


def test_latents_are_as_predicted_in_every_batch_and_worker(
    sampling_server: Server, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(request.node.name)
    draws = [Draw.at_random(chance) for _ in range(CALLS // 2)]
    seen = Seen()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(CALLERS) as callers:
        stubs = [stack.enter_context(sampling_server.generative()) for _ in range(CONNECTIONS)]
        jobs = [
            callers.submit(call, stub, draw, seen)
            for draw, stub in zip(draws, cycle(stubs), strict=False)
        ]
        for job in jobs:
            job.result()
    # The batches were no constant ones, and rows of several callers were in them.
    assert len(seen.batch_rows) >= 6
    assert seen.met_others > CALLS // 50
