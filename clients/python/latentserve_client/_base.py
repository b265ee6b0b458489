"""Base of the sync and the asyncio client: arguments, requests and replies.

It performs no network input or output. Each public method of a client builds a `Call` here and
executes it on its channel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latentserve.v1 import generative_service_pb2 as generative_pb2
from latentserve.v1 import (
    generative_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    tensor_pb2,
)
from latentserve_client import _checks as checks
from latentserve_client import _models as models
from latentserve_client._codec import from_images, from_tensor, to_latents
from latentserve_client._images import Images, to_images
from latentserve_client._results import (
    DecodeResult,
    DenoiseResult,
    EncodeResult,
    ReconstructResult,
    SampleChunk,
    SampleResult,
    ServedBy,
    Timings,
)

OutputFormat: TypeAlias = Literal["float32", "float16", "uint8", "png"]
Metadata: TypeAlias = Sequence[tuple[str, str]]

DEFAULT_TIMEOUT_S = 10.0
# Reloading verifies and warms up models, which takes longer than running them.
RELOAD_TIMEOUT_S = 120.0
DEFAULT_MAX_MESSAGE_BYTES = 64 * 2**20

R = TypeVar("R")


class Stubs:
    """Generated stubs on one channel of the sync or the asyncio API."""

    def __init__(self, channel: Any) -> None:
        self.generative: Any = generative_service_pb2_grpc.GenerativeServiceStub(channel)  # type: ignore[no-untyped-call]
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One call, for a channel of either API."""

    method: Callable[[Stubs], Any]
    request: Any
    parse: Callable[[Any], R]
    timeout_s: float | None  # seconds; None only for watching health
    default_message: str = ""  # for an error without a message


class ClientBase:
    """Settings of a client, and builders of its calls."""

    def __init__(
        self,
        server: str,
        *,
        timeout_s: float,
        model: str | None,
        wait_for_ready: bool,
        max_message_bytes: int,
        metadata: Metadata,
        may_be_read: bool,
    ) -> None:
        self.server = server
        self.timeout_s = checks.timeout(timeout_s)
        self.model_name = model
        checks.to_ref(model)  # an invalid name fails here, not in the first call
        self._wait_for_ready = wait_for_ready
        self._max_message_bytes = checks.integer(
            "max_message_bytes", max_message_bytes, 1, 2**31 - 1
        )
        self._metadata = tuple(metadata)
        if may_be_read:  # a plaintext connection, where others may read the token
            checks.token_is_encrypted(self._metadata)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.server!r})"

    def _models_call(self, timeout_s: float | None) -> Call[models.ModelList]:
        return Call(
            operator.attrgetter("models.ListModels"),
            model_service_pb2.ListModelsRequest(),
            models.from_list,
            self._deadline(timeout_s),
        )

    def _model_call(
        self, name: str | None, version: int, timeout_s: float | None
    ) -> Call[models.Model]:
        ref = self._ref(name)
        if version:
            ref.version = checks.integer("version", version, 1, 2**31 - 1)
        return Call(
            operator.attrgetter("models.GetModel"),
            model_service_pb2.GetModelRequest(model=ref),
            lambda reply: models.from_model(reply.model),
            self._deadline(timeout_s),
        )

    def _reload_call(
        self, names: Iterable[str], timeout_s: float | None
    ) -> Call[tuple[models.ReloadOutcome, ...]]:
        names = [names] if isinstance(names, str) else list(names)
        return Call(
            operator.attrgetter("models.ReloadModels"),
            model_service_pb2.ReloadModelsRequest(names=names),
            models.from_reload,
            checks.timeout(timeout_s)
            if timeout_s is not None
            else max(self.timeout_s, RELOAD_TIMEOUT_S),
        )

    def _health_call(self, service: str, timeout_s: float | None) -> Call[str]:
        return Call(
            operator.attrgetter("health.Check"),
            health_pb2.HealthCheckRequest(service=service),
            _health,
            self._deadline(timeout_s),
            default_message=f"no service or model {service!r}",
        )

    def _watch_call(self, service: str, timeout_s: float | None) -> Call[str]:
        return Call(
            operator.attrgetter("health.Watch"),
            health_pb2.HealthCheckRequest(service=service),
            _health,
            None if timeout_s is None else checks.timeout(timeout_s),
        )

    def _encode_call(
        self, images: Images, model: str | None, seed: int | None, timeout_s: float | None
    ) -> Call[EncodeResult]:
        request = generative_pb2.EncodeRequest(
            model=self._ref(model), images=to_images(images), seed=checks.seed(seed)
        )
        return Call(
            operator.attrgetter("generative.Encode"), request, _encoded, self._deadline(timeout_s)
        )

    def _decode_call(
        self, latents: Any, model: str | None, output_format: str, timeout_s: float | None
    ) -> Call[DecodeResult]:
        request = generative_pb2.DecodeRequest(
            model=self._ref(model),
            latents=to_latents(latents),
            output_format=checks.image_format(output_format),
        )
        return Call(
            operator.attrgetter("generative.Decode"),
            request,
            lambda reply: DecodeResult(**_images(reply)),
            self._deadline(timeout_s),
        )

    def _reconstruct_call(
        self, images: Images, model: str | None, output_format: str, timeout_s: float | None
    ) -> Call[ReconstructResult]:
        request = generative_pb2.ReconstructRequest(
            model=self._ref(model),
            images=to_images(images),
            output_format=checks.image_format(output_format),
        )
        return Call(
            operator.attrgetter("generative.Reconstruct"),
            request,
            _reconstructed,
            self._deadline(timeout_s),
        )

    def _denoise_call(
        self, images: Images, model: str | None, output_format: str, timeout_s: float | None
    ) -> Call[DenoiseResult]:
        request = generative_pb2.DenoiseRequest(
            model=self._ref(model),
            images=to_images(images),
            output_format=checks.image_format(output_format),
        )
        return Call(
            operator.attrgetter("generative.Denoise"),
            request,
            lambda reply: DenoiseResult(**_images(reply)),
            self._deadline(timeout_s),
        )

    def _sample_call(
        self,
        count: int,
        model: str | None,
        seed: int | None,
        offset: int,
        temperature: float | None,
        output_format: str,
        include_latents: bool,
        timeout_s: float | None,
    ) -> Call[SampleResult]:
        request = generative_pb2.SampleRequest(
            model=self._ref(model),
            count=checks.integer("count", count, 1, 2**31 - 1),
            seed=checks.seed(seed),
            offset=checks.integer("offset", offset, 0, 2**62),
            temperature=checks.temperature(temperature),
            output_format=checks.image_format(output_format),
            include_latents=include_latents,
        )
        return Call(
            operator.attrgetter("generative.Sample"),
            request,
            lambda reply: SampleResult(**_sampled(reply)),
            self._deadline(timeout_s),
        )

    def _sample_stream_call(
        self,
        count: int,
        model: str | None,
        seed: int | None,
        offset: int,
        temperature: float | None,
        output_format: str,
        include_latents: bool,
        chunk_rows: int,
        timeout_s: float | None,
    ) -> Call[SampleChunk]:
        request = generative_pb2.SampleStreamRequest(
            model=self._ref(model),
            count=checks.integer("count", count, 1, 2**63 - 1),
            seed=checks.seed(seed),
            offset=checks.integer("offset", offset, 0, 2**62),
            temperature=checks.temperature(temperature),
            output_format=checks.image_format(output_format),
            include_latents=include_latents,
            chunk_rows=checks.integer("chunk_rows", chunk_rows, 0, 2**31 - 1),
        )
        return Call(
            operator.attrgetter("generative.SampleStream"),
            request,
            lambda reply: SampleChunk(offset=reply.offset, **_sampled(reply)),
            self._deadline(timeout_s),
        )

    def _ref(self, model: str | None) -> tensor_pb2.ModelRef:
        return checks.to_ref(self.model_name if model is None else model)

    def _deadline(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else checks.timeout(timeout_s)


def _health(reply: Any) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def _served(reply: Any) -> dict[str, Any]:
    by, timings = reply.served_by, reply.timings
    return {
        "served_by": ServedBy(by.name, by.version, by.digest, by.provider),
        "timings": Timings(timings.queue_ns, timings.compute_ns, timings.batch_rows),
    }


def _images(reply: Any) -> dict[str, Any]:
    return {"received": from_images(reply.images), **_served(reply)}


def _encoded(reply: Any) -> EncodeResult:
    return EncodeResult(
        latents=from_tensor(reply.latents, rank=2),
        log_variance=_optional_tensor(reply, "log_variance"),
        seed=reply.seed if reply.HasField("seed") else None,
        **_served(reply),
    )


def _reconstructed(reply: Any) -> ReconstructResult:
    return ReconstructResult(
        squared_error=np.array(reply.squared_error, np.float32), **_images(reply)
    )


def _sampled(reply: Any) -> dict[str, Any]:
    return {
        "seed": reply.seed,
        "latents": _optional_tensor(reply, "latents"),
        **_images(reply),
    }


def _optional_tensor(reply: Any, name: str) -> Any:
    return from_tensor(getattr(reply, name), rank=2) if reply.HasField(name) else None
