"""The RPCs of GenerativeService, independent of the transport.

Each method takes the request's bytes, its deadline and a callback, and returns at once; the
thread that finishes the work calls the callback with a Reply. A transport adapts this to gRPC.
For an invalid request, the method itself raises a CallError.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_server.batching.finite import all_finite
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.codec import tensors
from latentserve_server.codec.reply_writer import Piece, floats_field
from latentserve_server.codec.request_parser import ParsedRequest, RequestParser, parse
from latentserve_server.errors import InvalidRequest, OperationNotSupported, OutputNotFinite
from latentserve_server.manifest.reader import Manifest
from latentserve_server.repository.lifecycle import Repository
from latentserve_server.repository.model_version import LoadedModel
from latentserve_server.sampling import philox
from latentserve_server.services.call import Call, Done, UnaryMethod
from latentserve_server.services.reply import ReplyBuilder, submit
from latentserve_server.services.sample_stream import SampleSpec, SampleStream, prior_of

GENERATIVE_SERVICE = "latentserve.v1.GenerativeService"

# Paths of the tensor's data: field numbers from the request inwards.
_IMAGES_DATA = (2, 1, 3)
_LATENTS_DATA = (2, 3)


class GenerativeService:
    """Implements Encode, Decode, Reconstruct, Denoise, Sample and SampleStream.

    Args:
        repository: resolves the models.
        max_request_rows: largest number of images or latents in one request.
        max_stream_rows: largest number of images in one SampleStream.
        chunk_rows: default number of images in each reply of a SampleStream.
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
        self._encode_parser = RequestParser(pb.EncodeRequest, _IMAGES_DATA)
        self._decode_parser = RequestParser(pb.DecodeRequest, _LATENTS_DATA)
        self._reconstruct_parser = RequestParser(pb.ReconstructRequest, _IMAGES_DATA)
        self._denoise_parser = RequestParser(pb.DenoiseRequest, _IMAGES_DATA)

    def unary_methods(self) -> dict[str, UnaryMethod]:
        """Return the unary methods by their RPC name."""
        return {
            "Encode": self.encode,
            "Decode": self.decode,
            "Reconstruct": self.reconstruct,
            "Denoise": self.denoise,
            "Sample": self.sample,
        }

    def encode(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Encode images to latents."""
        parsed = self._encode_parser.read(request)
        model = self._resolve(parsed.name, parsed.version, "encode")
        seed = parsed.message.seed if parsed.message.HasField("seed") else None
        if seed is not None and not model.manifest.has_log_variance:
            raise OperationNotSupported(
                f"{model.manifest.name} has no log-variance to sample from; send no seed to get "
                "the latents themselves",
                metadata={"operations": _operations(model.manifest)},
            )
        rows = self._images(parsed, request, model, tensors.UNIT_RANGE)

        def build(completion: Completion) -> Iterable[Piece]:
            mean, *rest = completion.outputs
            latents = mean if seed is None else _sample_posterior(mean, rest[0], seed)
            yield from tensors.encode_tensor(1, latents)
            if rest:
                yield from tensors.encode_tensor(2, rest[0])
            if seed is not None:
                yield pb.EncodeResponse(seed=seed).SerializeToString()

        return submit(model, "encode", rows, deadline, done, ReplyBuilder(build, served_by=4))

    def decode(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Decode latents to images."""
        parsed = self._decode_parser.read(request)
        model = self._resolve(parsed.name, parsed.version, "decode")
        image_format = tensors.check_format(parsed.output_format)
        rows = self._latents(parsed, request, model)
        return submit(model, "decode", rows, deadline, done, _images_reply(image_format))

    def reconstruct(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Reconstruct images, and return the squared error of each."""
        parsed = self._reconstruct_parser.read(request)
        model = self._resolve(parsed.name, parsed.version, "reconstruct")
        image_format = tensors.check_format(parsed.output_format)
        rows = self._images(parsed, request, model, tensors.UNIT_RANGE)

        def build(completion: Completion) -> Iterable[Piece]:
            images, squared_error = completion.outputs
            encoded = tensors.encode_images(1, images, image_format)
            return (*encoded, *floats_field(2, squared_error))

        builder = ReplyBuilder(build, served_by=3, image_format=image_format)
        return submit(model, "reconstruct", rows, deadline, done, builder)

    def denoise(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Remove the noise of images."""
        parsed = self._denoise_parser.read(request)
        model = self._resolve(parsed.name, parsed.version, "denoise")
        image_format = tensors.check_format(parsed.output_format)
        rows = self._images(parsed, request, model, tensors.NOISY_RANGE)
        return submit(model, "denoise", rows, deadline, done, _images_reply(image_format))

    def sample(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Sample latents from the prior and decode them to images."""
        message = parse(pb.SampleRequest, request)
        model = self._resolve(message.model.name, message.model.version, "sample")
        image_format = tensors.check_format(message.output_format)
        spec = SampleSpec.of(message, max_count=self.max_request_rows)
        latents = spec.latents(prior_of(model), 0, spec.count)

        def build(completion: Completion) -> Iterable[Piece]:
            yield from tensors.encode_images(1, completion.outputs[0], image_format)
            if message.include_latents:
                yield from tensors.encode_tensor(2, latents)
            yield pb.SampleResponse(seed=spec.seed).SerializeToString()

        builder = ReplyBuilder(build, served_by=4, image_format=image_format)
        return submit(model, "sample", Rows(latents), deadline, done, builder)

    def sample_stream(self, request: bytes) -> SampleStream:
        """Start a SampleStream; the transport requests its chunks one after the other."""
        message = parse(pb.SampleStreamRequest, request)
        model = self._resolve(message.model.name, message.model.version, "sample")
        image_format = tensors.check_format(message.output_format)
        spec = SampleSpec.of(message, max_count=self.max_stream_rows)
        if not 0 <= message.chunk_rows <= self.max_request_rows:
            raise InvalidRequest.field(
                "chunk_rows",
                f"{message.chunk_rows} was sent, expected 1 to {self.max_request_rows}, "
                "or 0 to let the server choose",
            )
        return SampleStream(
            *(model, spec, image_format, message.include_latents),
            message.chunk_rows or self.chunk_rows,
        )

    def _resolve(self, name: str, version: int, operation: str) -> LoadedModel:
        model = self._repository.resolve(name, version)
        if operation not in model.manifest.operations:
            raise OperationNotSupported(
                f"{model.manifest.name} cannot {operation}; it can {_operations(model.manifest)}",
                metadata={"operations": _operations(model.manifest)},
            )
        return model

    def _images(
        self,
        parsed: ParsedRequest,
        request: bytes,
        model: LoadedModel,
        allowed: tuple[float, float],
    ) -> Rows:
        """Return the images of a request. The layout is checked once per cached request."""
        spec = model.manifest.image
        if parsed.layout is None or parsed.layout_of is not spec:
            images = parsed.message.images
            if images.WhichOneof("form") != "tensor":
                return tensors.file_rows(images, spec, max_rows=self.max_request_rows)
            length = len(images.tensor.data) if parsed.start < 0 else parsed.length
            parsed.layout = tensors.image_layout(
                images.tensor, length, spec, max_rows=self.max_request_rows
            )
            parsed.layout_of = spec
        if parsed.start >= 0:
            return tensors.image_rows(parsed.layout, request, parsed.start, allowed=allowed)
        data = parsed.message.images.tensor.data
        return tensors.image_rows(parsed.layout, data, 0, allowed=allowed)

    def _latents(self, parsed: ParsedRequest, request: bytes, model: LoadedModel) -> Rows:
        """Return the latents of a request. The layout is checked once per cached request."""
        dim, latents = model.manifest.latent_dim, parsed.message.latents
        allowed = model.latent_range
        if parsed.layout is None or parsed.layout_of != dim:
            length = len(latents.data) if parsed.start < 0 else parsed.length
            parsed.layout = tensors.latent_layout(
                latents, length, dim, max_rows=self.max_request_rows
            )
            parsed.layout_of = dim
        if parsed.start >= 0:
            return tensors.latent_rows(parsed.layout, request, parsed.start, allowed=allowed)
        return tensors.latent_rows(parsed.layout, latents.data, 0, allowed=allowed)


def _images_reply(image_format: int) -> ReplyBuilder:
    """Return the builder of a reply that has only images."""

    def build(completion: Completion) -> Iterable[Piece]:
        return tensors.encode_images(1, completion.outputs[0], image_format)

    return ReplyBuilder(build, served_by=2, image_format=image_format)


def _sample_posterior(
    mean: NDArray[np.float32], log_variance: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """Return z = mean + exp(log_variance / 2) e (Kingma & Welling 2013, eq. 10)."""
    noise = philox.standard_normal(
        seed, philox.POSTERIOR, offset=0, rows=len(mean), dim=mean.shape[1]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        deviation: NDArray[np.float32] = np.exp(log_variance * np.float32(0.5))
        latents: NDArray[np.float32] = mean + deviation * noise
    if not all_finite(latents):  # the variance of a row is beyond float32
        raise OutputNotFinite(int(np.argmin(np.isfinite(latents).all(axis=1))))
    return latents


def _operations(manifest: Manifest) -> str:
    return ", ".join(manifest.operations)
