"""The client against the real server and the exported models of this repository."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from latentserve_client import AsyncClient, Client, InvalidArgument, NotFound, digits
from latentserve_client import OperationNotSupported as NoSuchOperation
from latentserve_client._server_process import ServerProcess, free_address, server_command
from latentserve_client.cli import main
from latentserve_client.demo import main as demo

pytest.importorskip("onnxruntime")
EXPORTS = Path(__file__).parents[3] / "exports"


@pytest.fixture(scope="module")
def address(transport: str) -> Iterator[str]:
    address = free_address()
    command = server_command(EXPORTS, address, "cpu")
    with ServerProcess(command) as server, Client(address) as client:
        server.wait_until_serving(client)
        yield address
        assert server.stop() == 0, server.tail()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout_s=20) as client:
        yield client


@pytest.fixture(scope="module")
def ten() -> np.ndarray:
    return digits.bundled().images[:10]


def test_all_models_are_ready(client):
    models = client.models()
    assert len(models) >= 2
    for model in models:
        assert (model.state, model.reason) == ("ready", "")
        assert client.health(model.name) == "SERVING"
        assert model.metrics


def test_all_forms_of_images_give_equal_reconstructions(client, ten, tmp_path):
    as_uint8 = client.reconstruct(ten, model="mnist-ae")
    assert as_uint8.mse.mean() < 0.01
    as_float = client.reconstruct(ten / 255, model="mnist-ae")
    np.testing.assert_allclose(as_float.images, as_uint8.images, atol=1e-5)
    images = [PIL.Image.fromarray(image) for image in ten]
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
    for files in (images, [tmp_path / f"{index}.png" for index in range(10)]):
        as_files = client.reconstruct(files, model="mnist-ae")
        np.testing.assert_allclose(as_files.images, as_uint8.images, atol=1e-5)
    expected = np.square(as_uint8.images[:, 0] - ten / 255).sum(axis=(1, 2))
    np.testing.assert_allclose(as_uint8.squared_error, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("output_format", "tolerance"), [("float16", 1e-3), ("uint8", 0.5), ("png", 0.5)]
)
def test_output_formats_agree(client, ten, output_format, tolerance):
    exact = client.reconstruct(ten, model="mnist-ae").images
    result = client.reconstruct(ten, model="mnist-ae", output_format=output_format)
    scale = 255 if result.images.dtype == np.uint8 else 1
    np.testing.assert_allclose(result.images, exact * scale, atol=tolerance + 1e-3)


def test_encode_then_decode_is_reconstruct(client, ten):
    z = client.encode(ten, model="mnist-vae")
    assert z.log_variance.shape == z.latents.shape
    y = client.decode(z.latents, model="mnist-vae").images
    np.testing.assert_allclose(y, client.reconstruct(ten, model="mnist-vae").images, atol=1e-4)


def test_samples_can_be_repeated_and_resumed(client, ten):
    first = client.encode(ten, model="mnist-vae", seed=3).latents
    np.testing.assert_array_equal(client.encode(ten, model="mnist-vae", seed=3).latents, first)
    assert not np.allclose(client.encode(ten, model="mnist-vae", seed=4).latents, first)

    whole = client.sample(12, model="mnist-vae", seed=9, include_latents=True)
    chunks = client.sample_stream(
        7, model="mnist-vae", seed=9, offset=5, chunk_rows=3, include_latents=True
    )
    rest = list(chunks)
    assert [chunk.offset for chunk in rest] == [5, 8, 11]
    np.testing.assert_array_equal(np.concatenate([c.latents for c in rest]), whole.latents[5:])
    np.testing.assert_allclose(
        np.concatenate([c.images for c in rest]), whole.images[5:], atol=1e-4
    )
    again = client.sample(12, model="mnist-vae", seed=client.sample(model="mnist-vae").seed)
    assert len(again.images) == 12


def test_says_what_is_wrong(client, ten):
    with pytest.raises(InvalidArgument, match="28") as caught:
        client.reconstruct(ten[:, :20], model="mnist-ae")
    assert caught.value.violations[0].field == "images.tensor.shape"
    with pytest.raises(InvalidArgument):
        client.reconstruct(np.full((28, 28), np.nan), model="mnist-ae")
    with pytest.raises(NotFound, match="mnist-ae"):
        client.sample(model="nope")
    with pytest.raises(NoSuchOperation):
        client.sample(model="mnist-sparse")
    with pytest.raises(NotFound, match="nope"):
        client.health("nope")


def test_asyncio_calls_run_concurrently(address, ten):
    async def run():
        async with AsyncClient(address, model="mnist-vae") as client:
            async for status in client.watch_health():
                assert status == "SERVING"
                break
            results = await asyncio.gather(*[client.encode(ten[i : i + 1]) for i in range(10)])
            return np.concatenate([result.latents for result in results])

    with Client(address) as client:
        together = client.encode(ten, model="mnist-vae").latents
    np.testing.assert_allclose(asyncio.run(run()), together, atol=1e-4)


def test_command_line(address, tmp_path, capsys):
    picture, arrays = tmp_path / "x.png", tmp_path / "z.npz"
    common = ["--server", address, "--model", "mnist-vae"]
    assert main(["encode", "--digits", "5", "--out", str(arrays), *common]) == 0
    assert main(["decode", "--latents", str(arrays), "--out", str(picture), *common]) == 0
    assert main(["sample", "--count", "3000", *common]) == 0
    assert main(["health", *common]) == 0
    assert main(["encode", str(picture), *common]) == 1
    assert "expected 28 x 28" in capsys.readouterr().err
    assert main(["encode", str(picture), "--resize", *common]) == 0


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo.png"
    code = demo(["--exports", str(EXPORTS), "--out", str(out), "--device", "cpu"])
    text, errors = capsys.readouterr()
    assert (code, errors) == (0, "")
    assert "exit code 0" in text
    for call in ("Encode", "Decode", "Reconstruct", "Denoise", "Sample"):
        assert call in text
    with PIL.Image.open(out) as picture:
        assert picture.width > 800
