"""Tests of every RPC over a real connection, against outputs computed with numpy."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from latentserve_client import Client, cli
from latentserve_server.sampling import philox
from served import Server, ref

Floats = NDArray[np.float32]
TIMEOUT_S = 10.0


def tensor(array: NDArray[np.generic]) -> tensor_pb2.Tensor:
    types = {
        np.dtype(np.float32): tensor_pb2.DATA_TYPE_FLOAT32,
        np.dtype(np.float16): tensor_pb2.DATA_TYPE_FLOAT16,
        np.dtype(np.uint8): tensor_pb2.DATA_TYPE_UINT8,
    }
    return tensor_pb2.Tensor(data_type=types[array.dtype], shape=array.shape, data=array.tobytes())


def images(array: NDArray[np.generic]) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=tensor(array))


def floats(message: tensor_pb2.Tensor) -> Floats:
    assert message.data_type == tensor_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(message.data, np.float32).reshape(message.shape)


def test_encode_gives_mean_and_log_variance(server: Server) -> None:
    x = tiny_models.images(5)
    with server.generative() as stub:
        reply = stub.Encode(pb.EncodeRequest(images=images(x)), timeout=TIMEOUT_S)
    np.testing.assert_allclose(floats(reply.latents), tiny_models.encode(x), atol=1e-6)
    np.testing.assert_allclose(floats(reply.log_variance), tiny_models.log_variance(x), atol=1e-6)
    assert not reply.HasField("seed")


def test_encode_with_a_seed_samples_from_the_posterior(server: Server) -> None:
    x = tiny_models.images(5)
    with server.generative() as stub:
        reply = stub.Encode(pb.EncodeRequest(images=images(x), seed=11), timeout=TIMEOUT_S)
    noise = philox.standard_normal(11, philox.POSTERIOR, offset=0, rows=5, dim=tiny_models.DIM)
    expected = tiny_models.encode(x) + np.exp(tiny_models.log_variance(x) / 2) * noise
    np.testing.assert_allclose(floats(reply.latents), expected, atol=1e-5)
    assert reply.seed == 11


def test_encode_omits_a_log_variance_that_the_model_lacks(server: Server) -> None:
    with server.generative() as stub:
        request = pb.EncodeRequest(
            model=ref("tiny-autoencoder"), images=images(np.zeros((1, 1, 4, 4), np.uint8))
        )
        reply = stub.Encode(request, timeout=TIMEOUT_S)
    assert not reply.HasField("log_variance")


def test_decode(server: Server) -> None:
    z = np.random.default_rng(0).standard_normal((7, tiny_models.DIM)).astype(np.float32)
    with server.generative() as stub:
        reply = stub.Decode(pb.DecodeRequest(latents=tensor(z)), timeout=TIMEOUT_S)
    np.testing.assert_allclose(floats(reply.images.tensor), tiny_models.decode(z), atol=1e-6)


def test_reconstruct_gives_the_squared_error_of_each_image(server: Server) -> None:
    x = tiny_models.images(3)
    with server.generative() as stub:
        reply = stub.Reconstruct(pb.ReconstructRequest(images=images(x)), timeout=TIMEOUT_S)
    expected = tiny_models.decode(tiny_models.encode(x))
    np.testing.assert_allclose(floats(reply.images.tensor), expected, atol=1e-6)
    errors = ((x - expected) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(reply.squared_error, errors, rtol=1e-4)


def test_denoise_takes_values_outside_the_unit_interval(server: Server) -> None:
    x = tiny_models.images(2) + np.float32(0.9)
    with server.generative() as stub:
        request = pb.DenoiseRequest(model=ref("tiny-denoising"), images=images(x))
        reply = stub.Denoise(request, timeout=TIMEOUT_S)
    expected = tiny_models.decode(tiny_models.encode(x))
    np.testing.assert_allclose(floats(reply.images.tensor), expected, atol=1e-6)


def test_sample_decodes_the_documented_latents(server: Server) -> None:
    with server.generative() as stub:
        request = pb.SampleRequest(count=6, seed=5, offset=2, temperature=0.7, include_latents=True)
        reply = stub.Sample(request, timeout=TIMEOUT_S)
    z = philox.standard_normal(
        5, philox.PRIOR, offset=2, rows=6, dim=tiny_models.DIM, temperature=np.float32(0.7)
    )
    np.testing.assert_array_equal(floats(reply.latents), z)
    np.testing.assert_allclose(floats(reply.images.tensor), tiny_models.decode(z), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_sample_of_a_mixture_decodes_the_documented_latents(
    server: Server, temperature: float
) -> None:
    model = ref("tiny-mixture")
    request = pb.SampleRequest(
        model=model, count=12, seed=5, offset=2, temperature=temperature, include_latents=True
    )
    with server.generative() as stub:
        reply = stub.Sample(request, timeout=TIMEOUT_S)
        decoded = stub.Decode(
            pb.DecodeRequest(model=model, latents=reply.latents), timeout=TIMEOUT_S
        )
    z = tiny_models.mixture(5, 2, 12, float(np.float32(temperature)))
    np.testing.assert_allclose(floats(reply.latents), z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(floats(reply.images.tensor), tiny_models.decode(z), atol=1e-6)
    np.testing.assert_allclose(
        floats(decoded.images.tensor), floats(reply.images.tensor), atol=1e-6
    )


def test_at_temperature_0_a_mixture_gives_the_means_of_its_components(server: Server) -> None:
    with server.generative() as stub:
        request = pb.SampleRequest(
            model=ref("tiny-mixture"), count=32, seed=1, temperature=0, include_latents=True
        )
        found = floats(stub.Sample(request, timeout=TIMEOUT_S).latents)
    assert {tuple(row) for row in found.tolist()} == {
        tuple(row) for row in tiny_models.MEANS.tolist()
    }


def test_the_client_samples_from_a_mixture_and_names_it(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(server.address, timeout_s=TIMEOUT_S, model="tiny-mixture") as client:
        latent = client.model().latent
        result = client.sample(4, seed=5, offset=2, include_latents=True)
    assert (latent.prior, latent.mixture_components) == ("gaussian_mixture", 3)
    z = tiny_models.mixture(5, 2, 4)
    np.testing.assert_allclose(result.latents, z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.images, tiny_models.decode(z), atol=1e-6)
    assert cli.main(["models", "--server", server.address, "--model", "tiny-mixture"]) == 0
    assert "3 values, prior gaussian_mixture of 3" in capsys.readouterr().out
    assert cli.main(["models", "--server", server.address, "--model", "tiny-vae"]) == 0
    assert "3 values, prior standard_normal\n" in capsys.readouterr().out


def test_sample_without_a_seed_returns_the_chosen_seed(server: Server) -> None:
    with server.generative() as stub:
        first = stub.Sample(pb.SampleRequest(count=2, include_latents=True), timeout=TIMEOUT_S)
        other = stub.Sample(pb.SampleRequest(count=2), timeout=TIMEOUT_S)
        again = stub.Sample(
            pb.SampleRequest(count=2, seed=first.seed, include_latents=True), timeout=TIMEOUT_S
        )
    assert first.seed != other.seed
    assert first.latents.data == again.latents.data


@pytest.mark.parametrize("name", ["tiny-vae", "tiny-mixture"])
def test_a_stream_is_one_sample_in_chunks_and_can_be_resumed(server: Server, name: str) -> None:
    with server.generative() as stub:
        whole = stub.Sample(
            pb.SampleRequest(model=ref(name), count=30, seed=8, include_latents=True)
        )
        request = pb.SampleStreamRequest(
            model=ref(name), count=30, seed=8, chunk_rows=7, include_latents=True
        )
        chunks = list(stub.SampleStream(request, timeout=TIMEOUT_S))
        request.offset, request.count = 14, 16
        rest = list(stub.SampleStream(request, timeout=TIMEOUT_S))
    assert [chunk.offset for chunk in chunks] == [0, 7, 14, 21, 28]
    assert b"".join(chunk.latents.data for chunk in chunks) == whole.latents.data
    assert [chunk.offset for chunk in rest] == [14, 21, 28]
    assert b"".join(c.latents.data for c in rest) == b"".join(c.latents.data for c in chunks[2:])
    streamed = np.concatenate([floats(chunk.images.tensor) for chunk in chunks])
    np.testing.assert_allclose(streamed, floats(whole.images.tensor), atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-vae", "tiny-mixture"])
def test_latents_of_a_seed_do_not_depend_on_the_batch(server: Server, name: str) -> None:
    with server.generative() as stub:
        expected = np.concatenate(
            [
                floats(chunk.latents)
                for chunk in stub.SampleStream(
                    pb.SampleStreamRequest(
                        model=ref(name), count=64, seed=77, chunk_rows=32, include_latents=True
                    ),
                    timeout=TIMEOUT_S,
                )
            ]
        )
    pieces = [(start, rows) for rows in (1, 3, 8, 20) for start in range(0, 64 - rows, 5)]
    with server.generative() as stub, ThreadPoolExecutor(16) as pool:

        def sample(piece: tuple[int, int]) -> bytes:
            request = pb.SampleRequest(
                model=ref(name), count=piece[1], seed=77, offset=piece[0], include_latents=True
            )
            reply = stub.Sample(request, timeout=TIMEOUT_S)
            images = floats(reply.images.tensor)
            np.testing.assert_allclose(images, tiny_models.decode(floats(reply.latents)), atol=1e-6)
            data: bytes = reply.latents.data
            return data

        for (start, rows), data in zip(pieces, pool.map(sample, pieces), strict=True):
            assert data == expected[start : start + rows].tobytes()


def test_every_concurrent_call_gets_its_own_rows(server: Server) -> None:
    with server.generative() as stub, ThreadPoolExecutor(16) as pool:

        def call(number: int) -> int:
            x = tiny_models.images(1 + number % 20, seed=number)
            reply = stub.Reconstruct(pb.ReconstructRequest(images=images(x)), timeout=TIMEOUT_S)
            expected = tiny_models.decode(tiny_models.encode(x))
            np.testing.assert_allclose(floats(reply.images.tensor), expected, atol=1e-6)
            rows: int = reply.timings.batch_rows
            return rows

        batch_rows = list(pool.map(call, range(200)))
    assert max(batch_rows) <= 8  # larger requests ran in several batches


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_every_dtype_is_accepted(server: Server, dtype: type[np.generic]) -> None:
    levels = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4) * 17
    unit = levels.astype(np.float32) / 255
    x = levels if dtype is np.uint8 else unit.astype(dtype)
    with server.generative() as stub:
        reply = stub.Encode(pb.EncodeRequest(images=images(x)), timeout=TIMEOUT_S)
    np.testing.assert_allclose(floats(reply.latents), tiny_models.encode(unit), atol=1e-3)


def test_png_and_uint8_and_float16_replies_agree(server: Server) -> None:
    z = np.random.default_rng(1).standard_normal((9, tiny_models.DIM)).astype(np.float32)
    with server.generative() as stub:

        def decode(form: tensor_pb2.ImageFormat) -> tensor_pb2.Images:
            request = pb.DecodeRequest(latents=tensor(z), output_format=form)
            reply: pb.DecodeResponse = stub.Decode(request, timeout=TIMEOUT_S)
            return reply.images

        small = decode(tensor_pb2.IMAGE_FORMAT_UINT8).tensor
        half = decode(tensor_pb2.IMAGE_FORMAT_FLOAT16).tensor
        files = decode(tensor_pb2.IMAGE_FORMAT_PNG).encoded.files
    pixels = np.frombuffer(small.data, np.uint8).reshape(small.shape)
    np.testing.assert_array_equal(pixels, np.rint(tiny_models.decode(z) * 255).astype(np.uint8))
    np.testing.assert_allclose(
        np.frombuffer(half.data, np.float16).reshape(half.shape), tiny_models.decode(z), atol=1e-3
    )
    opened = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    np.testing.assert_array_equal(opened[:, np.newaxis], pixels)


def test_png_files_are_accepted(server: Server) -> None:
    levels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG")
    request = pb.EncodeRequest(
        images=tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=[out.getvalue()] * 2))
    )
    with server.generative() as stub:
        reply = stub.Encode(request, timeout=TIMEOUT_S)
    unit = np.stack([levels, levels])[:, np.newaxis].astype(np.float32) / 255
    np.testing.assert_allclose(floats(reply.latents), tiny_models.encode(unit), atol=1e-6)


def test_replies_have_served_by_and_timings(server: Server) -> None:
    with server.generative() as stub, server.models() as models:
        reply = stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        older = stub.Sample(pb.SampleRequest(model=ref("tiny-vae", 1), count=1), timeout=TIMEOUT_S)
        listed = models.GetModel(models_pb.GetModelRequest(), timeout=TIMEOUT_S).model
    assert (reply.served_by.name, reply.served_by.version) == ("tiny-vae", 3)
    assert older.served_by.version == 1
    assert older.served_by.digest != reply.served_by.digest == listed.digest
    assert reply.served_by.provider == listed.provider == "CPUExecutionProvider"
    assert reply.timings.compute_ns > 0
    assert reply.timings.batch_rows == 1


def test_models_are_described(server: Server) -> None:
    with server.models() as models:
        reply = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S)
    assert [(model.name, model.version) for model in reply.models] == [
        ("tiny-autoencoder", 1),
        ("tiny-denoising", 1),
        ("tiny-gan", 1),
        ("tiny-mixture", 1),
        ("tiny-vae", 3),
        ("tiny-vae", 1),
    ]
    assert reply.default_model == "tiny-vae"
    mixture, vae = reply.models[3:5]
    assert (mixture.latent.prior, mixture.latent.mixture_components) == ("gaussian_mixture", 3)
    assert models_pb.OPERATION_SAMPLE in mixture.operations
    assert vae.state == models_pb.Model.STATE_READY
    assert (vae.image.channels, vae.image.height, vae.image.width) == (1, 4, 4)
    assert (vae.latent.dim, vae.latent.prior) == (tiny_models.DIM, "standard_normal")
    assert vae.latent.mixture_components == 0
    assert vae.latent.has_log_variance
    assert (vae.likelihood.family, vae.likelihood.sigma) == ("gaussian", 0.1)
    assert (vae.limits.max_request_rows, vae.limits.max_batch_rows) == (32, 8)
    (metric,) = vae.metrics
    assert (metric.name, metric.value, metric.baseline, metric.baseline_name) == (
        "test_mse",
        0.25,
        0.5,
        "PCA-3",
    )
