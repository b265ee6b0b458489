# ruff: noqa: N802  -- the methods are named as in the .proto files
"""Fake server over a real connection, with arithmetic instead of models.

Encode gives the mean intensity of each image in all 16 latents, Decode fills images with that
value, Reconstruct returns 0.9 times the image and Denoise thresholds at 0.5. `failures` are
returned first, one per call.
"""

from __future__ import annotations

import collections
import io
import threading
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import PIL.Image
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from latentserve.v1 import generative_service_pb2 as generative_pb2
from latentserve.v1 import generative_service_pb2_grpc, model_service_pb2_grpc, tensor_pb2
from latentserve.v1 import model_service_pb2 as models_pb2

DIM = 16
DTYPES = {1: np.float32, 2: np.float16, 3: np.uint8}
BY = tensor_pb2.ServedBy(
    name="mnist-vae", version=2, digest="ab" * 32, provider="CPUExecutionProvider"
)
TIMINGS = tensor_pb2.Timings(queue_ns=1_000, compute_ns=2_000_000, batch_rows=8)


@dataclass(frozen=True)
class Failure:
    """Error that a call returns instead of its reply."""

    code: str
    message: str = "it failed"
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    pushback_ms: int | None = None
    detailed: bool = True


class Status(grpc.Status):
    def __init__(self, code: Any, details: str, trailing_metadata: Any) -> None:
        self.code, self.details, self.trailing_metadata = code, details, trailing_metadata


@dataclass
class Seen:
    """Request, metadata and remaining time of one call."""

    method: str
    request: Any
    time_remaining_s: float | None
    metadata: dict[str, str]


class FakeServer(
    generative_service_pb2_grpc.GenerativeServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.failures: collections.deque[Failure] = collections.deque()
        self.seen: list[Seen] = []
        self.cancelled = threading.Event()
        self.models = [fake_model("mnist-vae", 2), fake_model("mnist-vae", 1), REFUSED]
        self.max_request_rows = 64
        self.health = health.HealthServicer()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**20)],
        )
        generative_service_pb2_grpc.add_GenerativeServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def set_health(self, service: str, status: str) -> None:
        self.health.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))

    @property
    def last(self) -> Any:
        return self.seen[-1].request

    def Encode(self, request: Any, context: Any) -> Any:
        self._enter("Encode", request, context)
        x = read_images(request.images)
        z = np.repeat(x.mean(axis=(1, 2, 3))[:, None], DIM, axis=1)
        reply = generative_pb2.EncodeResponse(
            latents=tensor(z), log_variance=tensor(z - 1), served_by=BY, timings=TIMINGS
        )
        if request.HasField("seed"):
            reply.seed = request.seed
        return reply

    def Decode(self, request: Any, context: Any) -> Any:
        self._enter("Decode", request, context)
        images = images_message(paint(read_tensor(request.latents)), request.output_format)
        return generative_pb2.DecodeResponse(images=images, served_by=BY, timings=TIMINGS)

    def Reconstruct(self, request: Any, context: Any) -> Any:
        self._enter("Reconstruct", request, context)
        x = read_images(request.images)
        y = x * np.float32(0.9)
        return generative_pb2.ReconstructResponse(
            images=images_message(y, request.output_format),
            squared_error=np.square(x - y).sum(axis=(1, 2, 3)),
            served_by=BY,
            timings=TIMINGS,
        )

    def Denoise(self, request: Any, context: Any) -> Any:
        self._enter("Denoise", request, context)
        y = (read_images(request.images) > 0.5).astype(np.float32)
        images = images_message(y, request.output_format)
        return generative_pb2.DenoiseResponse(images=images, served_by=BY, timings=TIMINGS)

    def Sample(self, request: Any, context: Any) -> Any:
        self._enter("Sample", request, context)
        return generative_pb2.SampleResponse(**draw(request, request.count, request.offset))

    def SampleStream(self, request: Any, context: Any) -> Any:
        self._enter("SampleStream", request, context)
        context.add_callback(self.cancelled.set)
        rows = request.chunk_rows or 4
        for start in range(0, request.count, rows):
            count = min(rows, request.count - start)
            offset = request.offset + start
            yield generative_pb2.SampleStreamResponse(offset=offset, **draw(request, count, offset))

    def ListModels(self, request: Any, context: Any) -> Any:
        self._enter("ListModels", request, context)
        return models_pb2.ListModelsResponse(models=self.models, default_model="mnist-vae")

    def GetModel(self, request: Any, context: Any) -> Any:
        self._enter("GetModel", request, context)
        name, version = request.model.name or "mnist-vae", request.model.version
        for model in self.models:
            if model.name == name and version in (0, model.version):
                model.limits.max_request_rows = self.max_request_rows
                return models_pb2.GetModelResponse(model=model)
        names = ", ".join(sorted({model.name for model in self.models}))
        abort(context, Failure("NOT_FOUND", f"no model {name}", metadata={"models": names}))

    def ReloadModels(self, request: Any, context: Any) -> Any:
        self._enter("ReloadModels", request, context)
        action = models_pb2.ReloadOutcome
        return models_pb2.ReloadModelsResponse(
            outcomes=[
                action(name="mnist-ae", version=1, action=action.ACTION_LOADED),
                action(name="mnist-vae", version=3, action=action.ACTION_REFUSED, reason="sha256"),
            ]
        )

    def _enter(self, method: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.seen.append(Seen(method, request, context.time_remaining(), metadata))
        if self.failures:
            abort(context, self.failures.popleft())


def fake_model(name: str, version: int) -> models_pb2.Model:
    return models_pb2.Model(
        name=name,
        version=version,
        state=models_pb2.Model.STATE_READY,
        digest="ab" * 32,
        kind="vae",
        description="A fake of a variational autoencoder.",
        image=models_pb2.ImageSpec(channels=1, height=28, width=28),
        latent=models_pb2.LatentSpec(dim=DIM, prior="standard_normal", has_log_variance=True),
        operations=[1, 2, 3, 4, 5],
        likelihood=models_pb2.Likelihood(family="gaussian", sigma=0.25),
        limits=models_pb2.Limits(max_request_rows=64, max_stream_rows=1000, max_batch_rows=32),
        provider="CPUExecutionProvider",
        metrics=[
            models_pb2.Metric(
                name="test_mse", value=0.01, baseline=0.02, baseline_name="PCA-16", samples=10_000
            ),
            models_pb2.Metric(name="elbo", value=-90.5, unit="nats", samples=10_000),
        ],
    )


REFUSED = models_pb2.Model(
    name="broken", version=1, state=models_pb2.Model.STATE_REFUSED, reason="encode.onnx: sha256"
)


def abort(context: Any, failure: Failure) -> None:
    details: list[Any] = []
    if failure.reason or failure.metadata:
        details.append(
            error_details_pb2.ErrorInfo(reason=failure.reason, metadata=failure.metadata)
        )
    if failure.violations:
        bad = error_details_pb2.BadRequest()
        for name, description in failure.violations.items():
            bad.field_violations.add(field=name, description=description)
        details.append(bad)
    if failure.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(failure.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    trailers: list[tuple[str, Any]] = []
    if failure.detailed:
        status = status_pb2.Status(
            code=code_pb2.Code.Value(failure.code),
            message=failure.message,
            details=[packed(detail) for detail in details],
        )
        trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    if failure.pushback_ms is not None:
        trailers.append(("grpc-retry-pushback-ms", str(failure.pushback_ms)))
    code = getattr(grpc.StatusCode, failure.code)
    context.abort_with_status(Status(code, failure.message, tuple(trailers)))


def packed(detail: Any) -> any_pb2.Any:
    message = any_pb2.Any()
    message.Pack(detail)
    return message


def tensor(array: Any) -> tensor_pb2.Tensor:
    codes = {"float32": 1, "float16": 2, "uint8": 3}
    return tensor_pb2.Tensor(
        data_type=codes[array.dtype.name], shape=array.shape, data=array.tobytes()
    )


def read_tensor(message: tensor_pb2.Tensor) -> Any:
    return np.frombuffer(message.data, DTYPES[message.data_type]).reshape(message.shape)


def read_images(message: tensor_pb2.Images) -> Any:
    """Return float32 [n, c, h, w] in [0, 1]."""
    if message.WhichOneof("form") == "encoded":
        files = [PIL.Image.open(io.BytesIO(file)).convert("L") for file in message.encoded.files]
        x = np.stack([np.asarray(image) for image in files])[:, None]
    else:
        x = read_tensor(message.tensor)
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)


def paint(z: Any) -> Any:
    return np.broadcast_to(
        z.astype(np.float32).mean(axis=1)[:, None, None, None], (len(z), 1, 28, 28)
    ).clip(0, 1)


def images_message(x: Any, output_format: int) -> tensor_pb2.Images:
    pixels = np.rint(x * 255).astype(np.uint8)
    if output_format == tensor_pb2.IMAGE_FORMAT_PNG:
        files = []
        for image in pixels:
            buffer = io.BytesIO()
            PIL.Image.fromarray(image[0]).save(buffer, "PNG")
            files.append(buffer.getvalue())
        return tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))
    if output_format == tensor_pb2.IMAGE_FORMAT_UINT8:
        return tensor_pb2.Images(tensor=tensor(pixels))
    dtype = np.float16 if output_format == tensor_pb2.IMAGE_FORMAT_FLOAT16 else np.float32
    return tensor_pb2.Images(tensor=tensor(np.ascontiguousarray(x, dtype)))


def draw(request: Any, count: int, offset: int) -> dict[str, Any]:
    """Return rows that depend only on the row number, as the API specifies."""
    seed = request.seed if request.HasField("seed") else 4711
    z = np.repeat(((np.arange(offset, offset + count) % 100) / 100)[:, None], DIM, axis=1)
    z = z.astype(np.float32)
    drawn: dict[str, Any] = {
        "images": images_message(paint(z), request.output_format),
        "seed": seed,
        "served_by": BY,
        "timings": TIMINGS,
    }
    if request.include_latents:
        drawn["latents"] = tensor(z)
    return drawn
