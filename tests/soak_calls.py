"""Clients that make calls of every kind in random order, and check each reply."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tiny_models
from checked_load import images_of, tensor
from integration.test_bad_input import GENERATIVE, TABLE, call
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import generative_service_pb2_grpc, model_service_pb2_grpc, tensor_pb2
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve_server.sampling import philox
from served import Server, ref

TIMEOUT_S = 30.0
# Connections are replaced after this number of calls, to detect leaks of closed connections.
CALLS_PER_CONNECTION = 400
ATOL = 1e-5


class UnexpectedResult(Exception):
    """A call had an unexpected result."""


class Client(threading.Thread):
    """Makes sequential calls until it is stopped or a call has an unexpected result."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.calls = 0
        self.by_kind: dict[str, int] = {}
        self.failure = ""
        self._server = server
        self._random = random.Random(number)
        self._stop_requested = threading.Event()
        kinds: list[tuple[int, Callable[[], None]]] = [
            (6, self.encode),
            (6, self.decode),
            (8, self.reconstruct),
            (4, self.denoise),
            (6, self.sample),
            (3, self.sample_png),
            (2, self.stream),
            (2, self.cancel_stream),
            (2, self.list_models),
            (3, self.cancel),
            (3, self.exceed_deadline),
            (5, self.bad_request),
        ]
        self._kinds = [kind for weight, kind in kinds for _ in range(weight)]

    def request_stop(self) -> None:
        """Make no more calls."""
        self._stop_requested.set()

    def run(self) -> None:
        kind = self._kinds[0]
        try:
            while not self._stop_requested.is_set():
                with self._server.channel() as channel:
                    self._connect(channel)
                    for _ in range(CALLS_PER_CONNECTION):
                        kind = self._random.choice(self._kinds)
                        kind()
                        self.calls += 1
                        self.by_kind[kind.__name__] = self.by_kind.get(kind.__name__, 0) + 1
                        if self._stop_requested.is_set():
                            break
        except Exception as error:  # noqa: BLE001 - every error fails the soak test
            self.failure = f"{kind.__name__}: {error!r}"

    def _connect(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub: Any = generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    # --- calls that succeed ---------------------------------------------------------------------

    def encode(self) -> None:
        x = self._random_images()
        seed = self._random.choice([None, self._random.getrandbits(64)])
        reply = self._stub.Encode(pb.EncodeRequest(images=_images(x), seed=seed), timeout=TIMEOUT_S)
        expected, log_variance = tiny_models.encode(x), tiny_models.log_variance(x)
        if seed is not None:
            noise = philox.standard_normal(
                seed, philox.POSTERIOR, offset=0, rows=len(x), dim=tiny_models.DIM
            )
            expected = expected + np.exp(log_variance / 2) * noise
        _close(images_of(reply.latents), expected)
        _close(images_of(reply.log_variance), log_variance)

    def decode(self) -> None:
        z = np.random.default_rng(self._random.getrandbits(32)).normal(
            size=(self._random_rows(), tiny_models.DIM)
        )
        z = z.astype(np.float32)
        reply = self._stub.Decode(pb.DecodeRequest(latents=tensor(z)), timeout=TIMEOUT_S)
        _close(images_of(reply.images.tensor), tiny_models.decode(z))

    def reconstruct(self) -> None:
        x = self._random_images()
        reply = self._stub.Reconstruct(pb.ReconstructRequest(images=_images(x)), timeout=TIMEOUT_S)
        expected = tiny_models.decode(tiny_models.encode(x))
        _close(images_of(reply.images.tensor), expected)
        error = ((expected - x) ** 2).reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(reply.squared_error, error, rtol=1e-3)

    def denoise(self) -> None:
        x = self._random_images()
        request = pb.DenoiseRequest(model=ref("tiny-denoising"), images=_images(x))
        reply = self._stub.Denoise(request, timeout=TIMEOUT_S)
        _close(images_of(reply.images.tensor), tiny_models.decode(tiny_models.encode(x)))

    def sample(self) -> None:
        self._check_sample(self._random.getrandbits(64), self._random.randrange(2**40))

    def sample_png(self) -> None:
        request = pb.SampleRequest(
            count=self._random_rows(), seed=1, output_format=tensor_pb2.IMAGE_FORMAT_PNG
        )
        files = self._stub.Sample(request, timeout=TIMEOUT_S).images.encoded.files
        assert len(files) == request.count
        again = tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))
        reply = self._stub.Reconstruct(pb.ReconstructRequest(images=again), timeout=TIMEOUT_S)
        x = tiny_models.decode(_expected_latents(1, 0, request.count))
        expected = tiny_models.decode(tiny_models.encode(x))
        np.testing.assert_allclose(images_of(reply.images.tensor), expected, atol=0.01)

    def stream(self) -> None:
        request, chunks = self._begin_stream()
        offsets = [self._check_chunk(request, chunk) for chunk in chunks]
        assert offsets == list(range(request.offset, request.offset + 40, 8))

    def list_models(self) -> None:
        listed = self._models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        assert {model.name for model in listed} >= {"tiny-vae", "tiny-gan", "tiny-mixture"}
        assert all(model.state == models_pb.Model.STATE_READY for model in listed)
        found = self._models.GetModel(models_pb.GetModelRequest(), timeout=TIMEOUT_S).model
        assert (found.name, found.reason) == ("tiny-vae", "")
        health = self._health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING

    # --- calls that end early -------------------------------------------------------------------

    def cancel_stream(self) -> None:
        request, chunks = self._begin_stream()
        for _ in range(self._random.randrange(4)):
            self._check_chunk(request, next(chunks))
        chunks.cancel()

    def cancel(self) -> None:
        pending = self._stub.Sample.future(
            pb.SampleRequest(count=self._random_rows(), seed=1), timeout=TIMEOUT_S
        )
        self._stop_requested.wait(self._random.choice([0, 0, 0.0005, 0.002]))
        pending.cancel()

    def exceed_deadline(self) -> None:
        request = pb.SampleRequest(count=self._random_rows(), seed=1)
        try:
            reply = self._stub.Sample(request, timeout=self._random.uniform(1e-5, 3e-3))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        else:
            _close(
                images_of(reply.images.tensor),
                tiny_models.decode(_expected_latents(1, 0, request.count)),
            )

    def bad_request(self) -> None:
        name = self._random.choice(list(TABLE))
        method, request, code, message = TABLE[name]
        try:
            call(self._channel, GENERATIVE + method, request, TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() != code or not re.search(message, error.details() or ""):
                raise UnexpectedResult(f"{name}: {error.code()}: {error.details()}") from error
        else:
            raise UnexpectedResult(f"{name} did not fail")

    # --- helpers --------------------------------------------------------------------------------

    def _random_rows(self) -> int:
        return self._random.choice([1, 1, 1, 2, 5, 8, 13, 32])

    def _random_images(self) -> tiny_models.Floats:
        return tiny_models.images(self._random_rows(), self._random.getrandbits(32))

    def _check_sample(self, seed: int, offset: int) -> None:
        request = pb.SampleRequest(
            count=self._random_rows(), seed=seed, offset=offset, include_latents=True
        )
        reply = self._stub.Sample(request, timeout=TIMEOUT_S)
        latents = _expected_latents(seed, offset, request.count)
        np.testing.assert_array_equal(images_of(reply.latents), latents)
        _close(images_of(reply.images.tensor), tiny_models.decode(latents))

    def _begin_stream(self) -> tuple[pb.SampleStreamRequest, Any]:
        request = pb.SampleStreamRequest(
            count=40, chunk_rows=8, seed=self._random.getrandbits(64), offset=7
        )
        return request, self._stub.SampleStream(request, timeout=TIMEOUT_S)

    def _check_chunk(self, request: pb.SampleStreamRequest, chunk: Any) -> int:
        latents = _expected_latents(request.seed, chunk.offset, 8)
        _close(images_of(chunk.images.tensor), tiny_models.decode(latents))
        offset: int = chunk.offset
        return offset


def _images(x: tiny_models.Floats) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=tensor(x))


def _expected_latents(seed: int, offset: int, rows: int) -> tiny_models.Floats:
    return philox.standard_normal(seed, philox.PRIOR, offset=offset, rows=rows, dim=tiny_models.DIM)


def _close(found: tiny_models.Floats, expected: tiny_models.Floats) -> None:
    np.testing.assert_allclose(found, expected, atol=ATOL)
