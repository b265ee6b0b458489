import time

import numpy as np
import pytest
from unit.client.fake_server import REFUSED, Failure

from latentserve_client import AsyncClient, Client, InvalidArgument, NotFound, Unavailable


def test_lists_models(client, server):
    listed = client.models()
    assert len(listed) == 3
    assert listed.default == "mnist-vae"
    first = next(iter(listed))
    assert (first.name, first.version, first.state, first.ref) == (
        "mnist-vae",
        2,
        "ready",
        "mnist-vae:2",
    )
    assert first.operations == ("encode", "decode", "reconstruct", "denoise", "sample")
    assert (first.image.channels, first.image.height, first.image.width) == (1, 28, 28)
    assert first.likelihood.sigma == 0.25
    assert [metric.baseline for metric in first.metrics] == [0.02, None]
    refused = listed.models[-1]
    assert (refused.state, refused.reason, refused.likelihood) == ("refused", REFUSED.reason, None)


def test_unknown_enum_values_are_shown_as_numbers(client, server):
    server.models[0].operations.append(77)
    assert client.model().operations[-1] == "77"


@pytest.mark.parametrize("args", [("mnist-vae", 1), ("mnist-vae:1",), (None, 1)])
def test_describes_one_version(client, args):
    assert client.model(*args).version == 1


def test_an_unknown_model_lists_the_known_models(client):
    with pytest.raises(NotFound) as caught:
        client.model("nope")
    assert "broken, mnist-vae" in str(caught.value)
    assert caught.value.metadata == {"models": "broken, mnist-vae"}


def test_encodes(client, server, digits):
    result = client.encode(digits, model="mnist-vae:2")
    np.testing.assert_allclose(result.latents[:, 0], digits.mean(axis=(1, 2, 3)), rtol=1e-6)
    assert result.latents.dtype == np.float32
    np.testing.assert_allclose(result.log_variance, result.latents - 1)
    assert result.seed is None
    assert not server.last.HasField("seed")
    assert (server.last.model.name, server.last.model.version) == ("mnist-vae", 2)
    assert (result.served_by.name, result.served_by.version) == ("mnist-vae", 2)
    assert result.timings.compute_ns == 2_000_000


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.uint64(7)])
def test_encodes_with_a_seed(client, digits, seed):
    assert client.encode(digits, seed=seed).seed == seed


def test_result_arrays_are_read_only(client, digits):
    latents = client.encode(digits).latents
    with pytest.raises(ValueError, match="read-only"):
        latents[0, 0] = 1
    latents.copy()[0, 0] = 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ">f4"])
def test_decodes(client, server, dtype):
    z = np.full((2, 16), 0.25, dtype)
    result = client.decode(z)
    assert result.images.shape == (2, 1, 28, 28)
    assert result.images.dtype == np.float32
    np.testing.assert_array_equal(result.images, 0.25)
    assert server.last.latents.data_type == (2 if dtype == np.float16 else 1)


def test_decodes_one_row(client):
    assert client.decode(np.zeros(16, np.float32)).images.shape == (1, 1, 28, 28)
    assert client.decode([0.5] * 16).images.shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    "latents", [np.zeros((2, 16), int), np.zeros((2, 2, 2)), np.zeros((0, 16)), "text", 3.0]
)
def test_refuses_arrays_that_are_no_latents(client, server, latents):
    with pytest.raises(InvalidArgument, match="latents"):
        client.decode(latents)
    assert not server.seen


def test_reconstructs(client, digits):
    result = client.reconstruct(digits)
    np.testing.assert_allclose(result.images, digits * 0.9, rtol=1e-6)
    expected = np.square(digits * 0.1).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(result.squared_error, expected, rtol=1e-4)
    np.testing.assert_allclose(result.mse, expected / 784, rtol=1e-4)


def test_denoises(client, digits):
    np.testing.assert_array_equal(client.denoise(digits).images, digits > 0.5)


@pytest.mark.parametrize(
    ("output_format", "dtype"),
    [("float32", np.float32), ("float16", np.float16), ("uint8", np.uint8), ("png", np.uint8)],
)
def test_every_output_format_gives_arrays_files_and_pil_images(
    client, digits, output_format, dtype
):
    result = client.reconstruct(digits, output_format=output_format)
    assert result.images.dtype == dtype
    assert result.images.shape == digits.shape
    scale = 1 if dtype == np.uint8 else 255
    np.testing.assert_allclose(result.images * np.float32(scale), digits * 0.9 * 255, atol=0.6)
    assert [image.size for image in result.pil()] == [(28, 28)] * 3
    assert all(file.startswith(b"\x89PNG") for file in result.files)
    assert len(result.mse) == 3


def test_samples(client, server):
    result = client.sample(3, seed=5, offset=10, temperature=0.5, include_latents=True)
    assert result.seed == 5
    np.testing.assert_allclose(result.latents[:, 0], [0.10, 0.11, 0.12], rtol=1e-6)
    assert result.images.shape == (3, 1, 28, 28)
    assert server.last.temperature == 0.5


def test_the_server_chooses_a_seed(client, server):
    result = client.sample()
    assert (result.seed, result.latents) == (4711, None)
    assert not server.last.HasField("seed")
    assert not server.last.HasField("temperature")


def test_streams_samples_that_can_be_resumed(client):
    chunks = list(client.sample_stream(10, seed=5, chunk_rows=4, output_format="png"))
    assert [chunk.offset for chunk in chunks] == [0, 4, 8]
    assert [len(chunk.images) for chunk in chunks] == [4, 4, 2]
    assert [chunk.next_offset for chunk in chunks] == [4, 8, 10]
    rest = list(client.sample_stream(6, seed=5, offset=chunks[0].next_offset))
    np.testing.assert_allclose(
        np.concatenate([chunk.images for chunk in rest]),
        np.concatenate([chunk.images for chunk in chunks[1:]]) / 255,
        atol=1 / 255,
    )


def test_leaving_a_stream_cancels_it(client, server):
    stream = client.sample_stream(1_000_000, chunk_rows=1)
    next(stream)
    stream.close()
    assert server.cancelled.wait(5)


def test_a_stream_fails_with_our_errors(client, server):
    server.failures.append(Failure("INVALID_ARGUMENT", violations={"count": "too many"}))
    with pytest.raises(InvalidArgument, match="too many"):
        list(client.sample_stream(10))


def test_a_stream_checks_its_arguments_before_it_is_read(client):
    with pytest.raises(InvalidArgument, match="count"):
        client.sample_stream(0)


def test_health(client, server):
    assert client.health() == "SERVING"
    server.set_health("mnist-vae", "NOT_SERVING")
    assert client.health("mnist-vae") == "NOT_SERVING"
    with pytest.raises(NotFound):
        client.health("nope")


def test_watches_health(client, server):
    statuses = client.watch_health()
    assert next(statuses) == "SERVING"
    server.set_health("", "NOT_SERVING")
    assert next(statuses) == "NOT_SERVING"
    statuses.close()
    assert list(client.watch_health("nope", timeout_s=0.2)) == ["SERVICE_UNKNOWN"]


def test_reloads(client, server):
    loaded, refused = client.reload_models(["mnist-ae", "mnist-vae"])
    assert (loaded.name, loaded.action) == ("mnist-ae", "loaded")
    assert (refused.version, refused.action, refused.reason) == (3, "refused", "sha256")
    assert list(server.last.names) == ["mnist-ae", "mnist-vae"]
    assert 100 < server.seen[-1].time_remaining_s < 121
    client.reload_models("mnist-ae")
    assert list(server.last.names) == ["mnist-ae"]


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("models", ()),
        ("model", ()),
        ("encode", (np.zeros((1, 28, 28)),)),
        ("decode", (np.zeros(16),)),
        ("reconstruct", (np.zeros((1, 28, 28)),)),
        ("denoise", (np.zeros((1, 28, 28)),)),
        ("sample", (1,)),
        ("sample_stream", (1,)),
    ],
)
def test_every_call_has_a_deadline(client, server, method, args):
    for options, limit_s in (({}, 5), ({"timeout_s": 2.5}, 2.5)):
        result = getattr(client, method)(*args, **options)
        if method == "sample_stream":
            list(result)
        # gRPC rounds the timeout up to 3 digits.
        assert limit_s - 1 < server.seen[-1].time_remaining_s < limit_s + 0.1


def test_the_model_of_the_client_is_the_default(connect, server):
    client = connect(server.address, model="mnist-ae:4")
    client.sample()
    assert (server.last.model.name, server.last.model.version) == ("mnist-ae", 4)
    client.sample(model="other")
    assert (server.last.model.name, server.last.model.version) == ("other", 0)


def test_sends_metadata(connect, server):
    token = [("authorization", "Bearer x")]
    connect(server.address, metadata=token, allow_plaintext_token=True).sample()
    assert server.seen[-1].metadata["authorization"] == "Bearer x"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_is_not_sent_in_plain_text_unless_allowed(kind, server):
    for key in ("authorization", "Authorization"):
        with pytest.raises(InvalidArgument, match="allow_plaintext_token"):
            kind(server.address, metadata=[(key, "Bearer x")])
    assert not server.seen


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"count": 0}, "count"),
        ({"count": 1.5}, "count"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"offset": -1}, "offset"),
        ({"temperature": float("nan")}, "temperature"),
        ({"output_format": "gif"}, "output_format"),
        ({"model": "a:b"}, "model"),
        ({"model": "a:0"}, "model"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
    ],
)
def test_refuses_invalid_arguments(client, server, options, field):
    with pytest.raises(InvalidArgument) as caught:
        client.sample(**options)
    assert caught.value.violations[0].field == field
    assert not server.seen


def test_wait_for_ready_waits_for_the_server(connect, server):
    address = server.address
    server.stop()
    start_s = time.monotonic()
    with pytest.raises(Unavailable):
        connect(address).sample(timeout_s=10)
    assert time.monotonic() - start_s < 9
    with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
        connect(address, wait_for_ready=True).sample(timeout_s=0.5)


def test_a_given_channel_is_used_and_left_open(server):
    import grpc

    with grpc.insecure_channel(server.address) as channel:
        with Client("unused:1", channel=channel) as client:
            client.sample()
        with Client("unused:1", channel=channel) as client:
            client.sample()


def test_async_client_is_a_context_manager(loop, server):
    async def run():
        async with AsyncClient(server.address) as client:
            return await client.health()

    assert loop.run_until_complete(run()) == "SERVING"
    assert repr(Client("a:1", channel=object.__new__(FakeChannel))) == "Client('a:1')"


class FakeChannel:
    def unary_unary(self, *args, **options):
        return None

    unary_stream = unary_unary
