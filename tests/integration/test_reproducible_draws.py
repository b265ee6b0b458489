"""Test of promise 1: a sampled row depends only on seed, index and temperature.

A thousand calls in random order, with random counts, offsets and chunks, come from concurrent
clients, so that rows are batched at random. Every row is as an independent implementation of
docs/sampling.md predicts, and the same in every batch and on every worker.
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
CLIENTS = 8
CONNECTIONS = 16  # enough for every worker to get some
MAX_ROWS = 8  # rows of a batch, fewer than a large call has
TIMEOUT_S = 30.0
ENGINE_S = 0.003  # long enough for calls to share batches
IMAGE_TOLERANCE = 1e-4  # docs/sampling.md
FAR = 2**62 - 40
Floats = NDArray[np.float32]
Key = tuple[str, int, int, float]


@dataclass(frozen=True)
class SampleCall:
    """Parameters of one Sample or SampleStream call."""

    model: str
    seed: int
    offset: int
    count: int
    temperature: float
    chunk_rows: int | None  # None: Sample

    @classmethod
    def at_random(cls, chance: random.Random) -> SampleCall:
        """Return a call for few different rows, so that most are sampled many times."""
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


class FirstReplies:
    """Checks each row against the prediction and against its first reply."""

    def __init__(self) -> None:
        self.latents: dict[Key, bytes] = {}
        self.images: dict[Key, Floats] = {}
        self.batch_rows: set[int] = set()
        self.shared_batches = 0

    def check(
        self,
        sample: SampleCall,
        offset: int,
        reply: pb.SampleResponse | pb.SampleStreamResponse,
    ) -> None:
        """Compare a reply with the prediction, and with the first reply of the same rows."""
        assert reply.seed == sample.seed
        latents = np.frombuffer(reply.latents.data, np.float32).reshape(-1, tiny_models.DIM)
        images = np.frombuffer(reply.images.tensor.data, np.float32)
        images = images.reshape(-1, 1, tiny_models.SIZE, tiny_models.SIZE)
        assert len(latents) == len(images)
        for place, (latent, image) in enumerate(zip(latents, images, strict=True)):
            key = (sample.model, sample.seed, offset + place, sample.temperature)
            # The reference uses another library for logarithm and cosine: see "How exact".
            if sample.model == "tiny-vae":
                np.testing.assert_array_max_ulp(latent, predicted(*key), maxulp=1)
            else:
                np.testing.assert_allclose(latent, predicted(*key), rtol=1e-6, atol=1e-6)
            assert self.latents.setdefault(key, latent.tobytes()) == latent.tobytes()
            first = self.images.setdefault(key, image)
            np.testing.assert_allclose(image, first, rtol=0, atol=IMAGE_TOLERANCE)
        np.testing.assert_allclose(images, tiny_models.decode(latents), atol=IMAGE_TOLERANCE)
        self.batch_rows.add(reply.timings.batch_rows)
        self.shared_batches += len(latents) < reply.timings.batch_rows


def call(stub: object, sample: SampleCall, first: FirstReplies) -> None:
    fields = {
        "model": ref(sample.model),
        "seed": sample.seed,
        "offset": sample.offset,
        "count": sample.count,
        "temperature": sample.temperature,
        "include_latents": True,
    }
    rows = 0
    if sample.chunk_rows is None:
        reply = stub.Sample(pb.SampleRequest(**fields), timeout=TIMEOUT_S)  # type: ignore[attr-defined]
        first.check(sample, sample.offset, reply)
        rows = reply.latents.shape[0]
    else:
        request = pb.SampleStreamRequest(**fields, chunk_rows=sample.chunk_rows)
        for chunk in stub.SampleStream(request, timeout=TIMEOUT_S):  # type: ignore[attr-defined]
            assert chunk.offset == sample.offset + rows
            first.check(sample, chunk.offset, chunk)
            rows += chunk.latents.shape[0]
    assert rows == sample.count


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
    samples = [SampleCall.at_random(chance) for _ in range(CALLS // 2)]
    first = FirstReplies()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as clients:
        stubs = [stack.enter_context(sampling_server.generative()) for _ in range(CONNECTIONS)]
        jobs = [
            clients.submit(call, stub, sample, first)
            for sample, stub in zip(samples, cycle(stubs), strict=False)
        ]
        for job in jobs:
            job.result()
    # The batches had different sizes, and contained rows of several calls.
    assert len(first.batch_rows) >= 6
    assert first.shared_batches > CALLS // 50
