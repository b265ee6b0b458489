"""Tests of each RPC of GenerativeService against numpy, without a transport."""

from __future__ import annotations

import io
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server.codec.request_parser import parse
from latentserve_server.engine.device import CPU, CPU_PROVIDER
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.errors import (
    CallError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    OperationNotSupported,
    QueueFull,
    Unavailable,
)
from latentserve_server.model_limits import Limits
from latentserve_server.repository.lifecycle import Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import LoadedModel
from latentserve_server.sampling import philox
from latentserve_server.services.call import Reply
from latentserve_server.services.generative import GenerativeService

R = TypeVar("R", bound=Message)

MAX_REQUEST_ROWS = 20
MAX_BATCH_ROWS = 8  # smaller than a request: the rows of one request span several batches
MAX_STREAM_ROWS = 50
DIM = tiny_models.DIM
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    root = tmp_path_factory.mktemp("exports")
    for kind in tiny_models.KINDS:
        tiny_models.write_model(root, kind, kind=kind)
    tiny_models.write_model(root, "vae", kind="vae", version=2)
    tiny_models.write_model(root, "mixture", kind="autoencoder", with_mixture=True)
    repository = Repository(
        root,
        Loader(
            lambda manifest: OnnxEngine(manifest, CPU, threads=1),
            limits=lambda name: Limits(max_batch_rows=MAX_BATCH_ROWS, queue_rows=64),
        ),
        default_model="vae",
        max_versions=10,
    )
    repository.scan()
    repository.load_all()
    yield repository
    repository.close(timeout_s=5.0)


@pytest.fixture(scope="module")
def service(repository: Repository) -> GenerativeService:
    return GenerativeService(
        repository,
        max_request_rows=MAX_REQUEST_ROWS,
        max_stream_rows=MAX_STREAM_ROWS,
        chunk_rows=MAX_BATCH_ROWS,
    )


def finish(begin: Callable[[Callable[[Reply], None]], object], response: type[R]) -> R:
    """Start a call, wait for its reply and parse it."""
    replies: queue.Queue[Reply] = queue.Queue()
    begin(replies.put)
    message = response.FromString(replies.get(timeout=TIMEOUT_S).build())
    assert replies.empty()
    return message


class MessageClient:
    """Calls the methods with messages instead of bytes."""

    def __init__(self, service: GenerativeService) -> None:
        self.service = service

    def _call(self, method: Any, request: Message, response: type[R]) -> R:
        return finish(lambda done: method(request.SerializeToString(), None, done), response)

    def encode(self, **fields: Any) -> pb.EncodeResponse:
        return self._call(self.service.encode, pb.EncodeRequest(**fields), pb.EncodeResponse)

    def decode(self, **fields: Any) -> pb.DecodeResponse:
        return self._call(self.service.decode, pb.DecodeRequest(**fields), pb.DecodeResponse)

    def reconstruct(self, **fields: Any) -> pb.ReconstructResponse:
        request = pb.ReconstructRequest(**fields)
        return self._call(self.service.reconstruct, request, pb.ReconstructResponse)

    def denoise(self, **fields: Any) -> pb.DenoiseResponse:
        return self._call(self.service.denoise, pb.DenoiseRequest(**fields), pb.DenoiseResponse)

    def sample(self, **fields: Any) -> pb.SampleResponse:
        return self._call(self.service.sample, pb.SampleRequest(**fields), pb.SampleResponse)

    def stream(self, **fields: Any) -> list[pb.SampleStreamResponse]:
        stream = self.service.sample_stream(pb.SampleStreamRequest(**fields).SerializeToString())
        chunks = []
        while not stream.exhausted:
            chunks.append(
                finish(lambda done: stream.next_chunk(None, done), pb.SampleStreamResponse)
            )
            assert len(chunks) <= MAX_STREAM_ROWS
        return chunks


@pytest.fixture
def call(service: GenerativeService) -> MessageClient:
    return MessageClient(service)


def model(name: str, version: int = 0) -> tensor_pb2.ModelRef:
    return tensor_pb2.ModelRef(name=name, version=version)


def to_tensor(array: Any) -> tensor_pb2.Tensor:
    data_type = {"f": tensor_pb2.DATA_TYPE_FLOAT32, "u": tensor_pb2.DATA_TYPE_UINT8}
    return tensor_pb2.Tensor(
        data_type=data_type[array.dtype.kind], shape=array.shape, data=array.tobytes()
    )


def to_images(array: Any) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=to_tensor(array))


def to_array(tensor: tensor_pb2.Tensor) -> Any:
    assert tensor.data_type == tensor_pb2.DATA_TYPE_FLOAT32
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tuple(tensor.shape))


def latents(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)


def close_to(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-5)


# --- the five methods -------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3, MAX_REQUEST_ROWS])
def test_encode_gives_the_mean_and_the_log_variance(call: MessageClient, rows: int) -> None:
    x = tiny_models.images(rows, seed=rows)
    reply = call.encode(model=model("vae"), images=to_images(x))
    assert to_array(reply.latents) == close_to(tiny_models.encode(x))
    assert to_array(reply.log_variance) == close_to(tiny_models.log_variance(x))
    assert not reply.HasField("seed")


def test_encode_omits_the_log_variance_for_models_without_one(call: MessageClient) -> None:
    x = tiny_models.images(2)
    reply = call.encode(model=model("autoencoder"), images=to_images(x))
    assert to_array(reply.latents) == close_to(tiny_models.encode(x))
    assert not reply.HasField("log_variance")


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("rows", [1, MAX_REQUEST_ROWS])
def test_encode_with_a_seed_samples_from_the_posterior(
    call: MessageClient, rows: int, seed: int
) -> None:
    x = tiny_models.images(rows, seed=rows)
    reply = call.encode(model=model("vae"), images=to_images(x), seed=seed)
    noise = philox.standard_normal(seed, philox.POSTERIOR, offset=0, rows=rows, dim=DIM)
    expected = tiny_models.encode(x) + np.exp(tiny_models.log_variance(x) / 2) * noise
    assert to_array(reply.latents) == close_to(expected)
    assert to_array(reply.log_variance) == close_to(tiny_models.log_variance(x))
    assert reply.HasField("seed")
    assert reply.seed == seed


def test_the_noise_of_the_posterior_is_not_that_of_the_prior() -> None:
    prior, posterior = (
        philox.standard_normal(5, domain, offset=0, rows=4, dim=DIM)
        for domain in (philox.PRIOR, philox.POSTERIOR)
    )
    assert np.abs(prior - posterior).min() > 0


@pytest.mark.parametrize("rows", [1, MAX_REQUEST_ROWS])
@pytest.mark.parametrize("name", list(tiny_models.KINDS))
def test_decode_gives_the_images_of_the_latents(call: MessageClient, name: str, rows: int) -> None:
    z = latents(rows)
    reply = call.decode(model=model(name), latents=to_tensor(z))
    assert to_array(reply.images.tensor) == close_to(tiny_models.decode(z))


@pytest.mark.parametrize("rows", [1, MAX_REQUEST_ROWS])
def test_reconstruct_gives_the_images_and_the_squared_error_of_each(
    call: MessageClient, rows: int
) -> None:
    x = tiny_models.images(rows)
    reply = call.reconstruct(model=model("vae"), images=to_images(x))
    expected = tiny_models.decode(tiny_models.encode(x))
    assert to_array(reply.images.tensor) == close_to(expected)
    error = ((x - expected) ** 2).sum(axis=(1, 2, 3))
    assert np.array(reply.squared_error) == pytest.approx(error, rel=1e-4)


def test_the_squared_error_is_in_units_of_unit_images_and_before_rounding(
    call: MessageClient,
) -> None:
    x = np.random.default_rng(1).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    reply = call.reconstruct(
        model=model("vae"), images=to_images(x), output_format=tensor_pb2.IMAGE_FORMAT_UINT8
    )
    floats = x.astype(np.float32) / np.float32(255)
    expected = tiny_models.decode(tiny_models.encode(floats))
    error = ((floats - expected) ** 2).sum(axis=(1, 2, 3))
    assert np.array(reply.squared_error) == pytest.approx(error, rel=1e-4)


def test_denoise_takes_images_outside_the_unit_interval(call: MessageClient) -> None:
    x = tiny_models.images(3) * 8 - 4
    reply = call.denoise(model=model("denoising"), images=to_images(x))
    expected = tiny_models.decode(tiny_models.encode(x))
    assert to_array(reply.images.tensor) == close_to(expected)


@pytest.mark.parametrize("method", ["encode", "reconstruct"])
def test_other_operations_refuse_images_outside_the_unit_interval(
    call: MessageClient, method: str
) -> None:
    with pytest.raises(InvalidRequest, match="expected 0 to 1"):
        getattr(call, method)(model=model("vae"), images=to_images(tiny_models.images(3) * 8 - 4))


@pytest.mark.parametrize("rows", [1, MAX_REQUEST_ROWS])
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_sample_decodes_the_prior_stream_of_its_seed(
    call: MessageClient, name: str, rows: int
) -> None:
    reply = call.sample(model=model(name), count=rows, seed=3, include_latents=True)
    z = philox.standard_normal(3, philox.PRIOR, offset=0, rows=rows, dim=DIM)
    np.testing.assert_array_equal(to_array(reply.latents), z)
    assert to_array(reply.images.tensor) == close_to(tiny_models.decode(z))
    assert reply.seed == 3


def test_sample_of_a_mixture_decodes_the_documented_latents(call: MessageClient) -> None:
    rows, temperature = MAX_REQUEST_ROWS, 0.25
    reply = call.sample(
        model=model("mixture"), count=rows, seed=3, temperature=temperature, include_latents=True
    )
    z = tiny_models.mixture(3, 0, rows, temperature)
    np.testing.assert_allclose(to_array(reply.latents), z, rtol=1e-6, atol=1e-6)
    assert to_array(reply.images.tensor) == close_to(tiny_models.decode(z))


@pytest.mark.parametrize("skip", [1, 7, 8, MAX_REQUEST_ROWS - 1])
def test_sampling_from_an_offset_continues_the_stream(call: MessageClient, skip: int) -> None:
    whole = call.sample(count=MAX_REQUEST_ROWS, seed=11, include_latents=True)
    rest = call.sample(count=MAX_REQUEST_ROWS - skip, seed=11, offset=skip, include_latents=True)
    np.testing.assert_array_equal(to_array(rest.latents), to_array(whole.latents)[skip:])
    assert to_array(rest.images.tensor) == pytest.approx(
        to_array(whole.images.tensor)[skip:], abs=1e-6
    )


def test_the_last_offset_can_be_sampled(call: MessageClient) -> None:
    reply = call.sample(count=2, seed=1, offset=2**62, include_latents=True)
    z = philox.standard_normal(1, philox.PRIOR, offset=2**62, rows=2, dim=DIM)
    np.testing.assert_array_equal(to_array(reply.latents), z)


def test_sampling_twice_gives_the_same_images_bit_for_bit(call: MessageClient) -> None:
    first, second = (call.sample(count=5, seed=9).images for _ in range(2))
    assert first.tensor.data == second.tensor.data


def test_temperature_scales_the_latents(call: MessageClient) -> None:
    reply = call.sample(count=4, seed=2, temperature=0.5, include_latents=True)
    whole = call.sample(count=4, seed=2, include_latents=True)
    assert to_array(reply.latents) == pytest.approx(0.5 * to_array(whole.latents), abs=1e-7)


def test_temperature_zero_gives_the_decoded_origin(call: MessageClient) -> None:
    reply = call.sample(count=3, seed=2, temperature=0.0, include_latents=True)
    assert not to_array(reply.latents).any()
    origin = tiny_models.decode(np.zeros((3, DIM), dtype=np.float32))
    assert to_array(reply.images.tensor) == close_to(origin)


def test_latents_are_omitted_unless_requested(call: MessageClient) -> None:
    assert not call.sample(count=1, seed=1).HasField("latents")
    assert not call.stream(count=1, seed=1)[0].HasField("latents")


def test_a_sample_without_a_seed_returns_a_seed_that_repeats_it(call: MessageClient) -> None:
    first = call.sample(count=3)
    second = call.sample(count=3)
    assert first.seed != second.seed
    assert call.sample(count=3, seed=first.seed).images == first.images


def test_seed_zero_is_a_seed(call: MessageClient) -> None:
    first, second = (call.sample(count=1, seed=0) for _ in range(2))
    assert first.seed == second.seed == 0
    assert first.images == second.images


# --- the stream -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "chunk_rows", "sizes"),
    [
        (1, 0, [1]),
        (8, 0, [8]),
        (9, 0, [8, 1]),
        (20, 0, [8, 8, 4]),
        (20, 7, [7, 7, 6]),
        (20, 20, [20]),
        (3, 1, [1, 1, 1]),
        (2, 20, [2]),
    ],
)
def test_the_chunks_of_a_stream_are_the_rows_of_one_sample(
    call: MessageClient, count: int, chunk_rows: int, sizes: list[int]
) -> None:
    chunks = call.stream(
        model=model("vae"),
        count=count,
        seed=5,
        offset=100,
        chunk_rows=chunk_rows,
        include_latents=True,
        temperature=0.7,
    )
    whole = call.sample(
        model=model("vae"), count=count, seed=5, offset=100, include_latents=True, temperature=0.7
    )
    assert [chunk.images.tensor.shape[0] for chunk in chunks] == sizes
    starts = [100 + sum(sizes[:index]) for index in range(len(sizes))]
    assert [chunk.offset for chunk in chunks] == starts
    np.testing.assert_array_equal(
        np.concatenate([to_array(chunk.latents) for chunk in chunks]), to_array(whole.latents)
    )
    assert np.concatenate([to_array(chunk.images.tensor) for chunk in chunks]) == pytest.approx(
        to_array(whole.images.tensor), abs=1e-6
    )


def test_a_stream_resumes_from_its_offset(call: MessageClient) -> None:
    chunks = call.stream(count=20, seed=5)
    last = chunks[0]
    rest = call.stream(count=12, seed=last.seed, offset=last.offset + last.images.tensor.shape[0])
    assert [chunk.images for chunk in rest] == [chunk.images for chunk in chunks[1:]]


def test_a_stream_without_a_seed_has_one_seed_in_every_chunk(call: MessageClient) -> None:
    chunks = call.stream(count=20)
    assert len({chunk.seed for chunk in chunks}) == 1
    assert call.stream(count=20, seed=chunks[0].seed)[2].images == chunks[2].images


def test_every_chunk_has_served_by_and_timings(call: MessageClient) -> None:
    for chunk in call.stream(model=model("vae", 1), count=20):
        assert (chunk.served_by.name, chunk.served_by.version) == ("vae", 1)
        assert chunk.timings.compute_ns > 0
        assert 1 <= chunk.timings.batch_rows <= MAX_BATCH_ROWS


def test_a_stream_computes_a_chunk_only_on_request(
    service: GenerativeService, repository: Repository
) -> None:
    stream = service.sample_stream(pb.SampleStreamRequest(count=50, seed=1).SerializeToString())
    assert repository.resolve("vae", 0).batcher.waiting_rows == 0
    assert not stream.exhausted


@pytest.mark.parametrize("output_format", tensor_pb2.ImageFormat.values())
def test_a_stream_has_the_requested_format(call: MessageClient, output_format: int) -> None:
    chunk = call.stream(count=2, seed=1, output_format=output_format)[0]
    assert chunk.images == call.sample(count=2, seed=1, output_format=output_format).images


# --- common fields of all replies -------------------------------------------------------------


REQUESTS: dict[str, Callable[[MessageClient, str], Any]] = {
    "encode": lambda call, name: call.encode(
        model=model(name), images=to_images(tiny_models.images(12))
    ),
    "decode": lambda call, name: call.decode(model=model(name), latents=to_tensor(latents(12))),
    "reconstruct": lambda call, name: call.reconstruct(
        model=model(name), images=to_images(tiny_models.images(12))
    ),
    "denoise": lambda call, name: call.denoise(
        model=model(name), images=to_images(tiny_models.images(12))
    ),
    "sample": lambda call, name: call.sample(model=model(name), count=12),
    "stream": lambda call, name: call.stream(model=model(name), count=12, chunk_rows=12)[0],
}


@pytest.mark.parametrize("method", REQUESTS)
def test_every_reply_has_served_by(
    call: MessageClient, repository: Repository, method: str
) -> None:
    name = "denoising" if method == "denoise" else "vae"
    served_by = REQUESTS[method](call, name).served_by
    assert served_by.name == name
    assert served_by.version == (1 if name == "denoising" else 2)
    assert served_by.digest == repository.resolve(name, 0).manifest.digest
    assert len(served_by.digest) == 64
    assert served_by.provider == CPU_PROVIDER


@pytest.mark.parametrize("method", REQUESTS)
def test_every_reply_has_timings(call: MessageClient, method: str) -> None:
    began = time.monotonic_ns()
    timings = REQUESTS[method](call, "denoising" if method == "denoise" else "vae").timings
    elapsed = time.monotonic_ns() - began
    assert 0 < timings.queue_ns < elapsed
    assert 0 < timings.compute_ns < elapsed
    assert timings.batch_rows == MAX_BATCH_ROWS


def test_the_requested_version_serves_the_call(call: MessageClient) -> None:
    for version, expected in ((0, 2), (1, 1), (2, 2)):
        reply = call.sample(model=model("vae", version), count=1)
        assert reply.served_by.version == expected


def test_the_default_model_serves_requests_without_a_name(call: MessageClient) -> None:
    assert call.sample(count=1).served_by.name == "vae"


# --- output formats ---------------------------------------------------------------------------


def pixels_of(images: tensor_pb2.Images) -> Any:
    """Return images of any format as uint8 [n, 1, SIZE, SIZE]."""
    if images.WhichOneof("form") == "encoded":
        pictures = [Image.open(io.BytesIO(data)) for data in images.encoded.files]
        assert all(picture.format == "PNG" for picture in pictures)
        return np.stack([np.asarray(picture) for picture in pictures])[:, np.newaxis]
    dtype = {1: "<f4", 2: "<f2", 3: "u1"}[images.tensor.data_type]
    array = np.frombuffer(images.tensor.data, dtype).reshape(tuple(images.tensor.shape))
    if dtype == "u1":
        return array
    return np.rint(np.clip(array.astype(np.float32), 0, 1) * np.float32(255)).astype(np.uint8)


@pytest.mark.parametrize("rows", [1, 12], ids=["one image", "more than eight images"])
@pytest.mark.parametrize("method", ["decode", "reconstruct", "denoise", "sample"])
def test_png_and_uint8_replies_are_the_rounded_float_reply(
    call: MessageClient, method: str, rows: int
) -> None:
    fields: dict[str, Any] = {"model": model("denoising" if method == "denoise" else "vae")}
    if method == "decode":
        fields["latents"] = to_tensor(latents(rows))
    elif method == "sample":
        fields.update(count=rows, seed=1)
    else:
        fields["images"] = to_images(tiny_models.images(rows))
    replies = {
        form: getattr(call, method)(output_format=form, **fields).images
        for form in tensor_pb2.ImageFormat.values()
    }
    assert replies[0] == replies[tensor_pb2.IMAGE_FORMAT_FLOAT32]
    assert replies[tensor_pb2.IMAGE_FORMAT_PNG].WhichOneof("form") == "encoded"
    expected = pixels_of(replies[tensor_pb2.IMAGE_FORMAT_FLOAT32])
    assert expected.shape == (rows, 1, tiny_models.SIZE, tiny_models.SIZE)
    for form in (tensor_pb2.IMAGE_FORMAT_UINT8, tensor_pb2.IMAGE_FORMAT_PNG):
        np.testing.assert_array_equal(pixels_of(replies[form]), expected)
    np.testing.assert_allclose(
        pixels_of(replies[tensor_pb2.IMAGE_FORMAT_FLOAT16]).astype(int), expected, atol=1
    )


def test_png_files_in_and_uint8_in_are_the_same_request(call: MessageClient) -> None:
    x = np.random.default_rng(3).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    files = []
    for image in x:
        out = io.BytesIO()
        Image.fromarray(image[0]).save(out, "PNG")
        files.append(out.getvalue())
    encoded = tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))
    from_files = call.encode(images=encoded)
    from_tensor = call.encode(images=to_images(x))
    assert from_files.latents == from_tensor.latents


# --- invalid requests -------------------------------------------------------------------------


BAD_DRAWS = [
    ({"count": 0}, "count", ["0 was sent", f"expected 1 to {MAX_REQUEST_ROWS}"]),
    ({"count": -1}, "count", ["-1 was sent"]),
    ({"count": MAX_REQUEST_ROWS + 1}, "count", [f"{MAX_REQUEST_ROWS + 1} was sent"]),
    ({"offset": -1}, "offset", ["-1 was sent", f"expected 0 to {2**62}"]),
    ({"offset": 2**62 + 1}, "offset", [f"{2**62 + 1} was sent"]),
    ({"temperature": -0.5}, "temperature", ["-0.5 was sent", "expected 0 to 10"]),
    ({"temperature": 10.5}, "temperature", ["10.5 was sent"]),
    ({"temperature": float("nan")}, "temperature", ["nan was sent"]),
    ({"temperature": float("inf")}, "temperature", ["inf was sent"]),
    ({"output_format": 77}, "output_format", ["77 was sent", "IMAGE_FORMAT_PNG"]),
]


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        call()
    (violation,) = refused.value.violations
    return violation.field, violation.description


@pytest.mark.parametrize(("fields", "field", "parts"), BAD_DRAWS)
def test_a_sample_out_of_range_is_refused(
    call: MessageClient, fields: dict[str, Any], field: str, parts: list[str]
) -> None:
    found, description = refusal(lambda: call.sample(**{"count": 1, **fields}))
    assert found == field
    for part in parts:
        assert part in description


BAD_STREAMS = [
    *[(fields, field) for fields, field, _ in BAD_DRAWS if fields != {"count": 21}],
    ({"count": MAX_STREAM_ROWS + 1}, "count"),
    ({"chunk_rows": -1}, "chunk_rows"),
    ({"chunk_rows": MAX_REQUEST_ROWS + 1}, "chunk_rows"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_STREAMS)
def test_a_stream_out_of_range_is_refused_before_its_first_chunk(
    service: GenerativeService, fields: dict[str, Any], field: str
) -> None:
    request = pb.SampleStreamRequest(**{"count": 1, **fields}).SerializeToString()
    found, _ = refusal(lambda: service.sample_stream(request))
    assert found == field


def test_a_stream_may_be_longer_than_a_request(call: MessageClient) -> None:
    chunks = call.stream(count=MAX_STREAM_ROWS, chunk_rows=MAX_REQUEST_ROWS)
    assert [chunk.images.tensor.shape[0] for chunk in chunks] == [20, 20, 10]


@pytest.mark.parametrize(
    ("name", "method", "has"),
    [
        ("gan", "encode", "decode, sample"),
        ("gan", "reconstruct", "decode, sample"),
        ("vae", "denoise", "encode, decode, reconstruct, sample"),
        ("autoencoder", "sample", "encode, decode, reconstruct"),
        ("autoencoder", "stream", "encode, decode, reconstruct"),
    ],
)
def test_an_unsupported_operation_is_refused_with_the_supported_ones(
    call: MessageClient, name: str, method: str, has: str
) -> None:
    with pytest.raises(OperationNotSupported) as refused:
        REQUESTS[method](call, name)
    assert refused.value.metadata["operations"] == has
    assert name in str(refused.value)
    assert has in str(refused.value)


def test_a_seed_for_a_model_without_log_variance_is_refused(call: MessageClient) -> None:
    with pytest.raises(OperationNotSupported, match="log-variance"):
        call.encode(model=model("autoencoder"), images=to_images(tiny_models.images(1)), seed=0)


@pytest.mark.parametrize("method", REQUESTS)
def test_an_unknown_model_is_not_found_with_the_known_names(
    call: MessageClient, method: str
) -> None:
    with pytest.raises(ModelNotFound) as refused:
        REQUESTS[method](call, "mnist")
    assert refused.value.metadata["models"] == "autoencoder, denoising, gan, mixture, vae"


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("encode", "images"),
        ("reconstruct", "images"),
        ("denoise", "images"),
        ("decode", "latents.data_type"),
        ("sample", "count"),
    ],
)
def test_an_empty_request_is_refused_with_the_missing_field(
    service: GenerativeService, method: str, field: str
) -> None:
    request = pb.SampleRequest(model=model("denoising" if method == "denoise" else "vae"))
    found, _ = refusal(
        lambda: getattr(service, method)(request.SerializeToString(), None, lambda reply: None)
    )
    assert found == field


@pytest.mark.parametrize("method", ["Encode", "Decode", "Reconstruct", "Denoise", "Sample"])
def test_malformed_bytes_are_an_invalid_request(service: GenerativeService, method: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        service.unary_methods()[method](b"\xff" * 10, None, lambda reply: None)
    assert f"10 bytes were sent that are not a latentserve.v1.{method}Request" in str(refused.value)


def test_malformed_bytes_start_no_stream(service: GenerativeService) -> None:
    with pytest.raises(InvalidRequest, match=r"latentserve\.v1\.SampleStreamRequest"):
        service.sample_stream(b"\xff\xff")


def test_fields_of_a_newer_contract_are_ignored() -> None:
    field_1000 = b"\xc2\x3e\x03new"
    assert parse(pb.SampleRequest, field_1000 + b"\x10\x05").count == 5


@pytest.mark.parametrize("rows", [0, MAX_REQUEST_ROWS + 1])
def test_the_limit_on_rows_is_that_of_the_service(call: MessageClient, rows: int) -> None:
    limit = f"expected 1 to {MAX_REQUEST_ROWS}"
    x = np.zeros((rows, 1, 4, 4), dtype=np.float32)
    for begin in (
        lambda: call.encode(images=to_images(x)),
        lambda: call.decode(latents=to_tensor(np.zeros((rows, DIM), dtype=np.float32))),
    ):
        _, description = refusal(begin)
        assert limit in description


def test_the_methods_are_those_of_the_contract(service: GenerativeService) -> None:
    contract = pb.DESCRIPTOR.services_by_name["GenerativeService"].methods
    unary = {method.name for method in contract if not method.server_streaming}
    assert set(service.unary_methods()) == unary
    assert {method.name for method in contract} - unary == {"SampleStream"}


# --- queue, deadline, cancellation ------------------------------------------------------------


class IdleBatchers:
    """A service whose models queue requests but never run them."""

    def __init__(self, root: Path) -> None:
        tiny_models.write_model(root, "vae")
        self.repository = Repository(
            root,
            Loader(
                lambda manifest: OnnxEngine(manifest, CPU, threads=1),
                limits=lambda name: Limits(
                    max_batch_rows=MAX_BATCH_ROWS, queue_rows=MAX_REQUEST_ROWS
                ),
            ),
            max_versions=1,
        )
        self.repository.scan()
        self.repository.load_all()
        model = self.repository.resolve("vae", 0)
        model.batcher.close(timeout_s=5.0)
        self.batcher = type(model.batcher)(
            OnnxEngine(model.manifest, CPU, threads=1),
            name="idle",
            max_batch_rows=MAX_BATCH_ROWS,
            queue_rows=MAX_REQUEST_ROWS,
        )
        self.model = LoadedModel(model.manifest, model.provider, self.batcher, model.prior)
        self.service = GenerativeService(
            self,  # type: ignore[arg-type]  # only `resolve` is used
            max_request_rows=MAX_REQUEST_ROWS,
            max_stream_rows=MAX_STREAM_ROWS,
            chunk_rows=MAX_BATCH_ROWS,
        )

    def resolve(self, name: str, version: int) -> Any:
        """Return the model, in place of the repository."""
        return self.model


@pytest.fixture
def idle(tmp_path: Path) -> IdleBatchers:
    return IdleBatchers(tmp_path)


def request_of(rows: int) -> bytes:
    return pb.SampleRequest(count=rows, seed=1).SerializeToString()


def test_a_full_queue_refuses_at_once_with_a_time_to_retry(idle: IdleBatchers) -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    idle.service.sample(request_of(MAX_REQUEST_ROWS), None, replies.put)
    with pytest.raises(QueueFull) as refused:
        idle.service.sample(request_of(1), None, replies.put)
    assert refused.value.retry_after_s is not None
    assert replies.empty()


def test_a_cancelled_call_leaves_the_queue_and_its_callback_is_not_called(
    idle: IdleBatchers,
) -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    call = idle.service.sample(request_of(5), None, replies.put)
    assert idle.batcher.waiting_rows == 5
    call.cancel()
    assert idle.batcher.waiting_rows == 0
    assert not idle.batcher.run_next()
    assert replies.empty()


def test_a_deadline_that_has_passed_is_refused_at_once(idle: IdleBatchers) -> None:
    with pytest.raises(DeadlineExceeded):
        idle.service.sample(request_of(1), time.monotonic() - 1.0, lambda reply: None)
    assert idle.batcher.waiting_rows == 0


def test_a_deadline_that_passes_in_the_queue_fails_the_call(idle: IdleBatchers) -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    idle.service.sample(request_of(1), time.monotonic() + 0.01, replies.put)
    time.sleep(0.02)
    idle.batcher.run_next()
    with pytest.raises(DeadlineExceeded):
        replies.get_nowait().build()


def test_a_stopping_server_fails_queued_requests(idle: IdleBatchers) -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    idle.service.sample(request_of(1), None, replies.put)
    idle.batcher.close(timeout_s=0.1)
    reply = replies.get(timeout=TIMEOUT_S)
    with pytest.raises(CallError) as failed:
        reply.build()
    assert isinstance(failed.value, Unavailable)


@pytest.mark.parametrize(
    ("rows", "output_format", "slow"),
    [
        (1, tensor_pb2.IMAGE_FORMAT_PNG, False),
        (12, tensor_pb2.IMAGE_FORMAT_PNG, True),
        (12, tensor_pb2.IMAGE_FORMAT_FLOAT32, False),
    ],
)
def test_many_png_files_are_built_off_the_event_loop(
    service: GenerativeService, rows: int, output_format: int, slow: bool
) -> None:
    replies: queue.Queue[Reply] = queue.Queue()
    request = pb.SampleRequest(count=rows, output_format=output_format)
    service.sample(request.SerializeToString(), None, replies.put)
    assert replies.get(timeout=TIMEOUT_S).slow is slow
