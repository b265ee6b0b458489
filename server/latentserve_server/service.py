"""The RPCs of GenerativeService, without a transport.

Each takes the request's bytes, its deadline and a callback, and returns at once; the
callback gets a Reply from whichever thread finished the work. A transport adapts that to
gRPC. What is wrong with a request is raised at once, as a CallError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_server import codec, sampling
from latentserve_server.call import Call, Done, Reply, UnaryMethod, parse
from latentserve_server.entry import ServedModel
from latentserve_server.errors import InvalidRequest, OperationNotSupported
from latentserve_server.manifest import Manifest
from latentserve_server.prior import Prior
from latentserve_server.repository import Repository
from latentserve_server.ticket import Completion, Rows

SERVICE_NAME = "latentserve.v1.GenerativeService"

MAX_TEMPERATURE = 10.0

# PNG files of one reply above which it is built off the transport's thread.
_MANY_FILES = 8
_LARGE_REPLY_BYTES = 2**20


class GenerativeService:
    """Answers Encode, Decode, Reconstruct, Denoise, Sample and SampleStream.

    Args:
        repository: resolves the models.
        max_request_rows: images or latents of one request, at most.
        max_stream_rows: images of one SampleStream, at most.
        chunk_rows: images per reply of a SampleStream that does not say.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        max_request_rows: int,
        max_stream_rows: int,
        chunk_rows: int,
    ) -> None:
        self._repository = repository
        self.max_request_rows = max_request_rows
        self.max_stream_rows = max_stream_rows
        self.chunk_rows = min(chunk_rows, max_request_rows)

    def unary_methods(self) -> dict[str, UnaryMethod]:
        """Return the unary methods by their name in the contract."""
        return {
            "Encode": self.encode,
            "Decode": self.decode,
            "Reconstruct": self.reconstruct,
            "Denoise": self.denoise,
            "Sample": self.sample,
        }

    def encode(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Images to latents."""
        message = parse(pb.EncodeRequest, request)
        model = self._resolve(message.model, "encode")
        seed = message.seed if message.HasField("seed") else None
        if seed is not None and not model.manifest.has_log_variance:
            raise OperationNotSupported(
                f"{model.manifest.name} has no log-variance to draw from; send no seed to get "
                "the latents themselves",
                metadata={"operations": _operations(model.manifest)},
            )
        rows = self._images(message.images, model, codec.UNIT_RANGE)

        def build(completion: Completion) -> Message:
            mean, *rest = completion.outputs
            latents = mean if seed is None else _draw_posterior(mean, rest[0], seed)
            return pb.EncodeResponse(
                latents=codec.encode_tensor(latents),
                log_variance=codec.encode_tensor(rest[0]) if rest else None,
                seed=seed,
            )

        return _submit(model, "encode", rows, deadline, done, build)

    def decode(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Latents to images."""
        message = parse(pb.DecodeRequest, request)
        model = self._resolve(message.model, "decode")
        form = codec.check_format(message.output_format)
        rows = codec.decode_latents(
            message.latents, model.manifest.latent_dim, max_rows=self.max_request_rows
        )

        def build(completion: Completion) -> Message:
            return pb.DecodeResponse(images=codec.encode_images(completion.outputs[0], form))

        return _submit(model, "decode", rows, deadline, done, build, form)

    def reconstruct(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Images to their reconstructions, with the squared error of each."""
        message = parse(pb.ReconstructRequest, request)
        model = self._resolve(message.model, "reconstruct")
        form = codec.check_format(message.output_format)
        rows = self._images(message.images, model, codec.UNIT_RANGE)

        def build(completion: Completion) -> Message:
            images = completion.outputs[0]
            return pb.ReconstructResponse(
                images=codec.encode_images(images, form),
                squared_error=_squared_error(rows, images),
            )

        return _submit(model, "reconstruct", rows, deadline, done, build, form)

    def denoise(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Noisy images to clean ones."""
        message = parse(pb.DenoiseRequest, request)
        model = self._resolve(message.model, "denoise")
        form = codec.check_format(message.output_format)
        rows = self._images(message.images, model, codec.NOISY_RANGE)

        def build(completion: Completion) -> Message:
            return pb.DenoiseResponse(images=codec.encode_images(completion.outputs[0], form))

        return _submit(model, "denoise", rows, deadline, done, build, form)

    def sample(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Images of latents drawn from the prior."""
        message = parse(pb.SampleRequest, request)
        model = self._resolve(message.model, "sample")
        form = codec.check_format(message.output_format)
        draw = _Draw.of(message, max_count=self.max_request_rows)
        latents = draw.latents(_prior(model), 0, draw.count)

        def build(completion: Completion) -> Message:
            return pb.SampleResponse(
                images=codec.encode_images(completion.outputs[0], form),
                latents=codec.encode_tensor(latents) if message.include_latents else None,
                seed=draw.seed,
            )

        return _submit(model, "sample", Rows(latents), deadline, done, build, form)

    def sample_stream(self, request: bytes) -> SampleStream:
        """Begin a SampleStream; the transport asks it for one chunk after the other."""
        message = parse(pb.SampleStreamRequest, request)
        model = self._resolve(message.model, "sample")
        form = codec.check_format(message.output_format)
        draw = _Draw.of(message, max_count=self.max_stream_rows)
        if not 0 <= message.chunk_rows <= self.max_request_rows:
            raise InvalidRequest.field(
                "chunk_rows",
                f"{message.chunk_rows} was sent, expected 1 to {self.max_request_rows}, "
                "or 0 to let the server choose",
            )
        return SampleStream(
            model, draw, form, message.include_latents, message.chunk_rows or self.chunk_rows
        )

    def _resolve(self, ref: tensor_pb2.ModelRef, operation: str) -> ServedModel:
        model = self._repository.resolve(ref.name, ref.version)
        if operation not in model.manifest.operations:
            raise OperationNotSupported(
                f"{model.manifest.name} cannot {operation}; it can {_operations(model.manifest)}",
                metadata={"operations": _operations(model.manifest)},
            )
        return model

    def _images(
        self, images: tensor_pb2.Images, model: ServedModel, allowed: tuple[float, float]
    ) -> Rows:
        return codec.decode_images(
            images, model.manifest.image, max_rows=self.max_request_rows, allowed=allowed
        )


@dataclass(frozen=True)
class _Draw:
    """What is drawn from the prior: `count` rows from `offset` on."""

    seed: int
    offset: int
    count: int
    temperature: float

    @classmethod
    def of(cls, message: Any, *, max_count: int) -> _Draw:
        """Check the fields that SampleRequest and SampleStreamRequest share."""
        if not 1 <= message.count <= max_count:
            raise InvalidRequest.field(
                "count", f"{message.count} was sent, expected 1 to {max_count}"
            )
        if not 0 <= message.offset <= sampling.MAX_OFFSET:
            raise InvalidRequest.field(
                "offset", f"{message.offset} was sent, expected 0 to {sampling.MAX_OFFSET}"
            )
        temperature = message.temperature if message.HasField("temperature") else 1.0
        if not 0.0 <= temperature <= MAX_TEMPERATURE:
            raise InvalidRequest.field(
                "temperature", f"{temperature} was sent, expected 0 to {MAX_TEMPERATURE:g}"
            )
        seed = message.seed if message.HasField("seed") else sampling.fresh_seed()
        return cls(seed, message.offset, message.count, temperature)

    def latents(self, prior: Prior, first: int, rows: int) -> NDArray[np.float32]:
        """Return rows `first` to `first + rows` of this draw, float32 [rows, dim]."""
        return prior.draw(
            self.seed, offset=self.offset + first, rows=rows, temperature=self.temperature
        )


class SampleStream:
    """The chunks of one SampleStream, one at a time: a slow caller costs one chunk."""

    def __init__(
        self, model: ServedModel, draw: _Draw, form: int, include_latents: bool, chunk_rows: int
    ) -> None:
        self._model = model
        self._prior = _prior(model)
        self._draw = draw
        self._form = form
        self._include_latents = include_latents
        self._chunk_rows = chunk_rows
        self._next_row = 0

    @property
    def exhausted(self) -> bool:
        """Whether every chunk was asked for."""
        return self._next_row >= self._draw.count

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Submit the next chunk; `done` gets its Reply."""
        first = self._next_row
        rows = min(self._chunk_rows, self._draw.count - first)
        self._next_row += rows
        latents = self._draw.latents(self._prior, first, rows)

        def build(completion: Completion) -> Message:
            return pb.SampleStreamResponse(
                images=codec.encode_images(completion.outputs[0], self._form),
                latents=codec.encode_tensor(latents) if self._include_latents else None,
                seed=self._draw.seed,
                offset=self._draw.offset + first,
            )

        return _submit(self._model, "sample", Rows(latents), deadline, done, build, self._form)


def _prior(model: ServedModel) -> Prior:
    assert model.prior is not None  # noqa: S101 - no manifest has `sample` without a prior
    return model.prior


def _submit(
    model: ServedModel,
    operation: str,
    rows: Rows,
    deadline: float | None,
    done: Done,
    build: Callable[[Completion], Any],
    form: int = tensor_pb2.IMAGE_FORMAT_UNSPECIFIED,
) -> Call:
    """Queue rows; when they are through, `done` gets a Reply that builds the response."""
    count = len(rows.array)
    slow = (
        count > _MANY_FILES
        if form == tensor_pb2.IMAGE_FORMAT_PNG
        else count * model.manifest.image.values * 4 > _LARGE_REPLY_BYTES
    )

    def completed(completion: Completion) -> None:
        def build_bytes() -> bytes:
            if completion.error is not None:
                raise completion.error
            response = build(completion)
            _sign(response, model, completion)
            serialized: bytes = response.SerializeToString()
            return serialized

        done(Reply(build_bytes, slow, (model, operation, count, completion)))

    return model.batcher.submit(operation, (rows,), deadline, completed)


def _sign(response: Any, model: ServedModel, completion: Completion) -> None:
    """Write into a response which model made it, and where the time went."""
    served_by, timings = response.served_by, response.timings
    served_by.name = model.manifest.name
    served_by.version = model.manifest.version
    served_by.digest = model.manifest.digest
    served_by.provider = model.provider
    timings.queue_ns = completion.queue_ns
    timings.compute_ns = completion.compute_ns
    timings.batch_rows = completion.batch_rows


def _draw_posterior(
    mean: NDArray[np.float32], log_variance: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """Return z = mean + exp(log_variance / 2) e (Kingma & Welling 2013, eq. 10)."""
    noise = sampling.standard_normal(
        seed, sampling.POSTERIOR, offset=0, rows=len(mean), dim=mean.shape[1]
    )
    draw: NDArray[np.float32] = mean + np.exp(log_variance * np.float32(0.5)) * noise
    return draw


def _squared_error(rows: Rows, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of (image - reconstruction)^2 of each row, [n]."""
    difference = (rows.as_float32() - images).reshape(len(images), -1)
    error: NDArray[np.float32] = np.einsum("nd,nd->n", difference, difference)
    return error


def _operations(manifest: Manifest) -> str:
    return ", ".join(manifest.operations)
