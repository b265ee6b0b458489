"""The RPCs of GenerativeService, without a transport.

Each takes the request's bytes, its deadline and a callback, and returns at once; the
callback gets a Reply from whichever thread finished the work. A transport adapts that to
gRPC. What is wrong with a request is raised at once, as a CallError.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_server import codec, sampling
from latentserve_server.answer import Answer, submit
from latentserve_server.call import Call, Done, UnaryMethod, parse
from latentserve_server.entry import ServedModel
from latentserve_server.errors import InvalidRequest, OperationNotSupported
from latentserve_server.manifest import Manifest
from latentserve_server.reply_bytes import Piece, floats_field
from latentserve_server.repository import Repository
from latentserve_server.request_reader import Form, RequestReader
from latentserve_server.sample_stream import Draw, SampleStream, prior_of
from latentserve_server.ticket import Completion, Rows

SERVICE_NAME = "latentserve.v1.GenerativeService"

# Where the tensor's data are: field numbers from the request inwards.
_IMAGES_DATA = (2, 1, 3)
_LATENTS_DATA = (2, 3)


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
        self._encodes = RequestReader(pb.EncodeRequest, _IMAGES_DATA)
        self._decodes = RequestReader(pb.DecodeRequest, _LATENTS_DATA)
        self._reconstructs = RequestReader(pb.ReconstructRequest, _IMAGES_DATA)
        self._denoises = RequestReader(pb.DenoiseRequest, _IMAGES_DATA)

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
        form = self._encodes.read(request)
        model = self._resolve(form.name, form.version, "encode")
        seed = form.message.seed if form.message.HasField("seed") else None
        if seed is not None and not model.manifest.has_log_variance:
            raise OperationNotSupported(
                f"{model.manifest.name} has no log-variance to draw from; send no seed to get "
                "the latents themselves",
                metadata={"operations": _operations(model.manifest)},
            )
        rows = self._images(form, request, model, codec.UNIT_RANGE)

        def build(completion: Completion) -> Iterable[Piece]:
            mean, *rest = completion.outputs
            latents = mean if seed is None else _draw_posterior(mean, rest[0], seed)
            yield from codec.encode_tensor(1, latents)
            if rest:
                yield from codec.encode_tensor(2, rest[0])
            if seed is not None:
                yield pb.EncodeResponse(seed=seed).SerializeToString()

        return submit(model, "encode", rows, deadline, done, Answer(build, served_by=4))

    def decode(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Latents to images."""
        form = self._decodes.read(request)
        model = self._resolve(form.name, form.version, "decode")
        image_format = codec.check_format(form.output_format)
        rows = self._latents(form, request, model)
        return submit(model, "decode", rows, deadline, done, _images_answer(image_format))

    def reconstruct(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Images to their reconstructions, with the squared error of each."""
        form = self._reconstructs.read(request)
        model = self._resolve(form.name, form.version, "reconstruct")
        image_format = codec.check_format(form.output_format)
        rows = self._images(form, request, model, codec.UNIT_RANGE)

        def build(completion: Completion) -> Iterable[Piece]:
            images, squared_error = completion.outputs
            encoded = codec.encode_images(1, images, image_format)
            return (*encoded, *floats_field(2, squared_error))

        answer = Answer(build, served_by=3, image_format=image_format)
        return submit(model, "reconstruct", rows, deadline, done, answer)

    def denoise(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Noisy images to clean ones."""
        form = self._denoises.read(request)
        model = self._resolve(form.name, form.version, "denoise")
        image_format = codec.check_format(form.output_format)
        rows = self._images(form, request, model, codec.NOISY_RANGE)
        return submit(model, "denoise", rows, deadline, done, _images_answer(image_format))

    def sample(self, request: bytes, deadline: float | None, done: Done) -> Call:
        """Images of latents drawn from the prior."""
        message = parse(pb.SampleRequest, request)
        model = self._resolve(message.model.name, message.model.version, "sample")
        image_format = codec.check_format(message.output_format)
        draw = Draw.of(message, max_count=self.max_request_rows)
        latents = draw.latents(prior_of(model), 0, draw.count)

        def build(completion: Completion) -> Iterable[Piece]:
            yield from codec.encode_images(1, completion.outputs[0], image_format)
            if message.include_latents:
                yield from codec.encode_tensor(2, latents)
            yield pb.SampleResponse(seed=draw.seed).SerializeToString()

        answer = Answer(build, served_by=4, image_format=image_format)
        return submit(model, "sample", Rows(latents), deadline, done, answer)

    def sample_stream(self, request: bytes) -> SampleStream:
        """Begin a SampleStream; the transport asks it for one chunk after the other."""
        message = parse(pb.SampleStreamRequest, request)
        model = self._resolve(message.model.name, message.model.version, "sample")
        image_format = codec.check_format(message.output_format)
        draw = Draw.of(message, max_count=self.max_stream_rows)
        if not 0 <= message.chunk_rows <= self.max_request_rows:
            raise InvalidRequest.field(
                "chunk_rows",
                f"{message.chunk_rows} was sent, expected 1 to {self.max_request_rows}, "
                "or 0 to let the server choose",
            )
        return SampleStream(
            *(model, draw, image_format, message.include_latents),
            message.chunk_rows or self.chunk_rows,
        )

    def _resolve(self, name: str, version: int, operation: str) -> ServedModel:
        model = self._repository.resolve(name, version)
        if operation not in model.manifest.operations:
            raise OperationNotSupported(
                f"{model.manifest.name} cannot {operation}; it can {_operations(model.manifest)}",
                metadata={"operations": _operations(model.manifest)},
            )
        return model

    def _images(
        self, form: Form, request: bytes, model: ServedModel, allowed: tuple[float, float]
    ) -> Rows:
        """Return the images of a request; their form is checked once for a form and a model."""
        spec = model.manifest.image
        if form.layout is None or form.layout_of is not spec:
            images = form.message.images
            if images.WhichOneof("form") != "tensor":
                return codec.file_rows(images, spec, max_rows=self.max_request_rows)
            length = len(images.tensor.data) if form.start < 0 else form.length
            form.layout = codec.image_layout(
                images.tensor, length, spec, max_rows=self.max_request_rows
            )
            form.layout_of = spec
        if form.start >= 0:
            return codec.image_rows(form.layout, request, form.start, allowed=allowed)
        return codec.image_rows(form.layout, form.message.images.tensor.data, 0, allowed=allowed)

    def _latents(self, form: Form, request: bytes, model: ServedModel) -> Rows:
        """Return the latents of a request."""
        dim, latents = model.manifest.latent_dim, form.message.latents
        if form.layout is None or form.layout_of != dim:
            length = len(latents.data) if form.start < 0 else form.length
            form.layout = codec.latent_layout(latents, length, dim, max_rows=self.max_request_rows)
            form.layout_of = dim
        if form.start >= 0:
            return codec.latent_rows(form.layout, request, form.start)
        return codec.latent_rows(form.layout, latents.data, 0)


def _images_answer(image_format: int) -> Answer:
    """Return the answer that is images and nothing else."""

    def build(completion: Completion) -> Iterable[Piece]:
        return codec.encode_images(1, completion.outputs[0], image_format)

    return Answer(build, served_by=2, image_format=image_format)


def _draw_posterior(
    mean: NDArray[np.float32], log_variance: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """Return z = mean + exp(log_variance / 2) e (Kingma & Welling 2013, eq. 10)."""
    noise = sampling.standard_normal(
        seed, sampling.POSTERIOR, offset=0, rows=len(mean), dim=mean.shape[1]
    )
    deviation: NDArray[np.float32] = np.exp(log_variance * np.float32(0.5))
    draw: NDArray[np.float32] = mean + deviation * noise
    return draw


def _operations(manifest: Manifest) -> str:
    return ", ".join(manifest.operations)
