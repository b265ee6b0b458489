"""Test target for serialised requests: the services' public methods, without a network.

Property tests and the fuzz target share it. Each call gives a reply or a CallError. The engine is
numpy code, and every batch runs on the calling thread.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from PIL import Image

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve.v1 import tensor_pb2
from latentserve_server.batching.batcher import Batcher
from latentserve_server.codec.request_parser import ParsedRequest, RequestParser, parse
from latentserve_server.engine.device import CPU_PROVIDER
from latentserve_server.errors import CallError, EngineFailure
from latentserve_server.manifest.reader import Manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.lifecycle import Outcome, Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.services.call import Reply
from latentserve_server.services.generative import GenerativeService
from latentserve_server.services.models import ModelService
from latentserve_server.status import explain

MAX_REQUEST_ROWS = 64
MAX_BATCH_ROWS = 16  # smaller than a request: its rows span several batches
TIMEOUT_S = 5.0
MAX_STREAM_ROWS = 100
STREAM_CHUNKS = 2  # requested chunks of a stream
_MAX_TRAILER_BYTES = 8 * 2**10

Floats = NDArray[np.float32]
# Reply message of each method.
RESPONSES: dict[str, type[Message]] = {
    "Encode": pb.EncodeResponse,
    "Decode": pb.DecodeResponse,
    "Reconstruct": pb.ReconstructResponse,
    "Denoise": pb.DenoiseResponse,
    "Sample": pb.SampleResponse,
    "SampleStream": pb.SampleStreamResponse,
    "ListModels": models_pb.ListModelsResponse,
    "GetModel": models_pb.GetModelResponse,
    "ReloadModels": models_pb.ReloadModelsResponse,
}
REQUESTS: dict[str, type[Message]] = {
    "Encode": pb.EncodeRequest,
    "Decode": pb.DecodeRequest,
    "Reconstruct": pb.ReconstructRequest,
    "Denoise": pb.DenoiseRequest,
    "Sample": pb.SampleRequest,
    "SampleStream": pb.SampleStreamRequest,
    "ListModels": models_pb.ListModelsRequest,
    "GetModel": models_pb.GetModelRequest,
    "ReloadModels": models_pb.ReloadModelsRequest,
}

ZERO_COPY_METHODS = ("Encode", "Decode", "Reconstruct", "Denoise")


class InvalidInput(Exception):
    """The engine got input that should have been refused."""


class NumpyEngine:
    """Computes the outputs of the tiny models, and checks its input."""

    provider = CPU_PROVIDER

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def run(self, operation: str, inputs: Sequence[Floats]) -> list[Floats]:
        """Run one batch."""
        (rows,) = inputs
        if rows.dtype != np.float32 or rows.shape[1:] != self._manifest.input_shape(operation):
            raise InvalidInput(f"{operation} got {rows.dtype} {rows.shape}")
        if not np.isfinite(rows).all() or not 1 <= len(rows) <= MAX_BATCH_ROWS:
            raise InvalidInput(
                f"{operation} got {len(rows)} rows, finite: {np.isfinite(rows).all()}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if operation in ("decode", "sample"):
                return [np.nan_to_num(tiny_models.decode(np.clip(rows, -9, 9)))]
            if operation == "encode":
                outputs = [tiny_models.encode(rows), tiny_models.log_variance(rows)]
                return outputs[: len(self._manifest.operations[operation].outputs)]
            return [tiny_models.decode(tiny_models.encode(rows))]

    def warm_up(self, batch_rows: Iterable[int]) -> Sequence[tuple[str, int, float]]:
        """Do nothing."""
        return ()

    def check_golden(self) -> float:
        """Return no difference."""
        return 0.0


class ReferenceParser:
    """Parses requests with the generated classes only, without a cache."""

    def __init__(self, parser: RequestParser) -> None:
        self._type = parser._type

    def read(self, request: bytes) -> ParsedRequest:
        """Return the parsed request."""
        return ParsedRequest(parse(self._type, request))


class Target:
    """The methods of both services over tiny models, which are written to `root`.

    If `reference`, requests are parsed with the generated classes only, for comparison.
    """

    def __init__(self, root: Path, *, reference: bool = False) -> None:
        self._offered: list[Batcher] = []
        for kind in tiny_models.KINDS:
            tiny_models.write_model(root, kind, kind=kind)
        loader = Loader(
            NumpyEngine,
            limits=lambda name: Limits(MAX_BATCH_ROWS, MAX_REQUEST_ROWS),
            inline_hook=self._take,
        )
        self.repository = Repository(root, loader, default_model="vae", max_versions=10)
        self.repository.scan()
        self.repository.load_all()
        generative = GenerativeService(
            self.repository,
            max_request_rows=MAX_REQUEST_ROWS,
            max_stream_rows=MAX_STREAM_ROWS,
            chunk_rows=MAX_BATCH_ROWS,
        )
        if reference:
            parsers = {n: p for n, p in vars(generative).items() if isinstance(p, RequestParser)}
            assert len(parsers) == 4
            for name, parser in parsers.items():
                setattr(generative, name, ReferenceParser(parser))
        models = ModelService(
            self.repository,
            max_request_rows=MAX_REQUEST_ROWS,
            max_stream_rows=MAX_STREAM_ROWS,
            reload=self._reload,
        )
        self._unary = {**generative.unary_methods(), **models.unary_methods()}
        self._stream = generative.sample_stream

    def close(self) -> None:
        """Stop the threads of the models."""
        self.repository.close(timeout_s=5)

    def _take(self, batcher: Batcher) -> bool:
        """Accept the offer of a batcher, whose batches this thread runs."""
        self._offered.append(batcher)
        return True

    def _reload(self, names: Collection[str]) -> list[Outcome]:
        for name in names:
            self.repository.find(name, 0)
        return []

    def call(self, method: str, request: bytes) -> list[Any] | CallError:
        """Return the parsed replies, or the error of a refused request.

        Everything else is raised: an unexpected exception, INTERNAL without an engine failure, a
        malformed reply, an error that gRPC could not send.
        """
        try:
            if method == "SampleStream":
                stream, replies = self._stream(request), []
                while not stream.exhausted and len(replies) < STREAM_CHUNKS:
                    replies.append(self._finish(lambda done: stream.next_chunk(None, done)))
            else:
                replies = [self._finish(lambda done: self._unary[method](request, None, done))]
        except EngineFailure as error:
            raise AssertionError(f"{method} failed internally: {error}") from error
        except CallError as error:
            _check_refusal(error)
            return error
        return [RESPONSES[method].FromString(reply) for reply in replies]

    def _finish(self, begin: Callable[[Callable[[Reply], None]], object]) -> bytes:
        replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        begin(replies.put)
        while self._offered:
            batcher = self._offered.pop()
            while batcher.run_next():
                pass
        reply = replies.get(timeout=TIMEOUT_S)  # a reload runs on a separate thread
        assert replies.empty()
        return reply.build()


def outcome(replies: list[Any] | CallError) -> object:
    """Return a comparable form of the result of `Target.call`, without durations."""
    if isinstance(replies, CallError):
        return type(replies), replies.message, replies.violations
    for reply in replies:
        reply.ClearField("timings")
    return [reply.SerializeToString(deterministic=True) for reply in replies]


def _check_refusal(error: CallError) -> None:
    """Check that an error has a text, fits into trailers, and reveals nothing of this machine."""
    status = explain(error)
    assert status.message
    assert status.cause is None
    size = sum(len(key) + len(value) for key, value in status.trailers)
    assert size + 3 * len(status.message.encode()) < _MAX_TRAILER_BYTES
    assert "Traceback" not in status.message


def valid_requests() -> dict[str, list[Message]]:
    """Return valid requests of every method, to be corrupted."""
    x, z = tiny_models.images(2), np.ones((3, tiny_models.DIM), np.float32)
    # Tensors of large requests are read without a copy.
    many, many_z = tiny_models.images(10), np.ones((60, tiny_models.DIM), np.float32)
    files = tensor_pb2.EncodedImages(files=[png_file(), jpeg_file()])
    forms = [
        tensor_pb2.Images(tensor=to_tensor(x)),
        tensor_pb2.Images(tensor=to_tensor(x.astype("<f2"))),
        tensor_pb2.Images(tensor=to_tensor((x * 255).astype("u1"))),
        tensor_pb2.Images(encoded=files),
        tensor_pb2.Images(tensor=to_tensor(many)),
    ]
    model = tensor_pb2.ModelRef(name="denoising", version=1)
    png, half = tensor_pb2.IMAGE_FORMAT_PNG, tensor_pb2.IMAGE_FORMAT_FLOAT16
    fields: dict[str, Any] = {"count": 5, "seed": 2**63, "offset": 7, "temperature": 0.5}
    return {
        "Encode": [pb.EncodeRequest(images=form, seed=3) for form in forms],
        "Decode": [
            pb.DecodeRequest(latents=to_tensor(z)),
            pb.DecodeRequest(model=model, latents=to_tensor(many_z), output_format=half),
            pb.DecodeRequest(latents=to_tensor(z.astype("<f2")), output_format=png),
        ],
        "Reconstruct": [
            pb.ReconstructRequest(model=model, images=form, output_format=half) for form in forms
        ],
        "Denoise": [pb.DenoiseRequest(model=model, images=form) for form in forms],
        "Sample": [pb.SampleRequest(**fields, include_latents=True), pb.SampleRequest(count=1)],
        "SampleStream": [pb.SampleStreamRequest(**fields, chunk_rows=2, include_latents=True)],
        "ListModels": [models_pb.ListModelsRequest()],
        "GetModel": [models_pb.GetModelRequest(model=model)],
        "ReloadModels": [models_pb.ReloadModelsRequest(names=["vae"])],
    }


def to_tensor(array: NDArray[Any]) -> tensor_pb2.Tensor:
    """Return the Tensor message of a float32, float16 or uint8 array."""
    data_type = {"<f4": 1, "<f2": 2, "|u1": 3}[array.dtype.str]
    return tensor_pb2.Tensor(
        data_type=data_type,  # type: ignore[arg-type]
        shape=array.shape,
        data=array.tobytes(),
    )


def png_file(**options: Any) -> bytes:
    """Return a PNG file of the tiny models' size."""
    return _file("PNG", **options)


def jpeg_file(**options: Any) -> bytes:
    """Return a JPEG file of the tiny models' size."""
    return _file("JPEG", **options)


def _file(form: str, **options: Any) -> bytes:
    size = tiny_models.SIZE
    pixels = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form, **options)
    return out.getvalue()
