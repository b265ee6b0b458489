"""Tests of the shipped models with hundreds of rows in a request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from latentserve_client import Client
from served import Server, served

EXPORTS = Path(__file__).parents[2] / "exports"
ROWS = 1000  # 3.1 MB as float32
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def shipped(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(EXPORTS, tmp_path_factory.mktemp("shipped") / "log") as server:
        yield server


def random_images(rows: int) -> np.ndarray:
    return np.random.default_rng(3).random((rows, 1, 28, 28), dtype=np.float32)


def test_a_large_request_equals_its_parts(shipped: Server) -> None:
    images = random_images(ROWS)
    with Client(shipped.address, model="mnist-ae", timeout_s=60) as client:
        whole = client.reconstruct(images)
        parts = [client.reconstruct(images[start : start + 100]) for start in range(0, ROWS, 100)]
    joined = np.concatenate([part.images for part in parts])
    np.testing.assert_allclose(whole.images, joined, atol=TOLERANCE)
    np.testing.assert_allclose(
        whole.squared_error, ((images - whole.images) ** 2).sum((1, 2, 3)), rtol=1e-4
    )


def test_large_requests_at_once_do_not_mix(shipped: Server) -> None:
    images = random_images(ROWS)
    with Client(shipped.address, model="mnist-ae", timeout_s=60) as client:
        expected = client.encode(images).latents

        def encode(start: int) -> float:
            found = client.encode(images[start:]).latents
            return float(np.abs(found - expected[start:]).max())

        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(encode, (0, 1, 250, 500, 900, 999))) < TOLERANCE * 10


def test_hundreds_of_png_files_in_requests_and_replies(shipped: Server) -> None:
    with Client(shipped.address, timeout_s=60) as client:
        sampled = client.sample(300, model="mnist-vae", seed=1, output_format="png")
        pixels = client.sample(300, model="mnist-vae", seed=1, output_format="uint8")
        from_files = client.encode(sampled.pil(), model="mnist-ae").latents
        from_pixels = client.encode(pixels.images, model="mnist-ae").latents
    np.testing.assert_allclose(from_files, from_pixels, atol=TOLERANCE)
