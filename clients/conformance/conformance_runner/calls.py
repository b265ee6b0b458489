"""Executes the call of a case: through the client, the stub or as raw bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from conformance_runner.blocking import open_client
from conformance_runner.case_folder import DEFAULT_DEADLINE_MS, CaseFolder, Json
from latentserve.v1 import (
    generative_service_pb2,
    generative_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    tensor_pb2,
)
from latentserve_client import AsyncClient, Client
from latentserve_client._channel import channel_options
from latentserve_client._codec import from_images, from_tensor
from latentserve_client._errors import error_from_rpc

_MAX_MESSAGE_BYTES = 64 * 2**20


@dataclass
class Part:
    """Reply of GenerativeService, or one message of a stream; None for absent fields."""

    images: NDArray[Any] | tuple[bytes, ...] | None = None
    latents: NDArray[Any] | None = None
    log_variance: NDArray[Any] | None = None
    squared_error: NDArray[Any] | None = None
    seed: int | None = None
    offset: int | None = None
    served_by: Any = None
    timings: Any = None


@dataclass
class CallResult:
    """Result of a successful call: parts of GenerativeService, or the value of another service."""

    parts: list[Part] = field(default_factory=list)
    value: Any = None


class Caller:
    """Executes calls; holds one channel per server, with and without retries."""

    def __init__(
        self, addresses: Mapping[str, str], folder: CaseFolder, *, asyncio_client: bool = False
    ) -> None:
        self._addresses = addresses
        self._folder = folder
        self._asyncio = asyncio.Runner() if asyncio_client else None
        self._channels: dict[tuple[str, bool], grpc.Channel] = {}
        self._async_channels: dict[tuple[str, bool], grpc.aio.Channel] = {}

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            channel.close()
        if self._asyncio is not None:
            for channel in self._async_channels.values():
                self._asyncio.run(channel.close(None))
            self._asyncio.close()

    def call(self, case: Json) -> CallResult:
        """Execute the call of a case. Raises the client's LatentserveError if it fails."""
        if case["through"] == "client":
            return self._through_client(case)
        try:
            return self._through_stub(case)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    def _channel(self, case: Json) -> grpc.Channel:
        key = _channel_key(case)
        if key not in self._channels:
            address, options = self._address_and_options(case)
            self._channels[key] = grpc.insecure_channel(address, options)
        return self._channels[key]

    def _address_and_options(self, case: Json) -> tuple[str, list[tuple[str, Any]]]:
        address = self._addresses[case["server"]]
        options = channel_options(address, _MAX_MESSAGE_BYTES)
        return address, [
            *options,
            ("grpc.enable_retries", int(_channel_key(case)[1])),
            ("grpc.use_local_subchannel_pool", 1),
        ]

    def _client(self, case: Json) -> Any:
        """Return a Client, or the blocking AsyncClient, for the server of a case."""
        settings: Any = {
            "timeout_s": _timeout_s(case),
            "metadata": list(case.get("metadata", {}).items()),
        }
        if self._asyncio is None:
            return Client(channel=self._channel(case), **settings)

        def make() -> AsyncClient:
            key = _channel_key(case)
            if key not in self._async_channels:
                address, options = self._address_and_options(case)
                self._async_channels[key] = grpc.aio.insecure_channel(address, options)
            return AsyncClient(channel=self._async_channels[key], **settings)

        return open_client(self._asyncio, make)

    def _through_client(self, case: Json) -> CallResult:
        client = self._client(case)
        request = case["request"]
        name = case["rpc"].rpartition("/")[2]
        if name == "ListModels":
            return CallResult(value=client.models())
        if name == "GetModel":
            ref = request.get("model", {})
            return CallResult(value=client.model(ref.get("name"), ref.get("version", 0)))
        if name == "ReloadModels":
            return CallResult(value=client.reload_models(request["names"]))
        if name == "Check":
            return CallResult(value=client.health(request["service"]))
        if name == "Watch":
            watching = client.watch_health(request["service"], timeout_s=_timeout_s(case))
            with closing(watching) as statuses:
                return CallResult(value=next(statuses))
        arguments = self._arguments(request)
        if name == "SampleStream":
            return CallResult([_part(chunk) for chunk in self._chunks(client, case, arguments)])
        method = getattr(client, name.lower())
        return CallResult([_part(method(**arguments))])

    def _arguments(self, request: Json) -> Json:
        """Return the request as arguments of the client's methods."""
        arguments: Json = {}
        if ref := request.get("model"):
            version = f":{ref['version']}" if "version" in ref else ""
            arguments["model"] = ref["name"] + version
        if images := request.get("images"):
            arguments["images"] = (
                [self._folder.file(path) for path in images["encoded"]]
                if "encoded" in images
                else self._folder.array(images["tensor"])
            )
        if latents := request.get("latents"):
            arguments["latents"] = self._folder.array(latents)
        if output_format := request.get("output_format"):
            arguments["output_format"] = output_format.lower()
        for name in ("count", "seed", "offset"):
            if name in request:
                arguments[name] = int(request[name])
        for name in ("temperature", "include_latents", "chunk_rows"):
            if name in request:
                arguments[name] = request[name]
        return arguments

    def _chunks(self, client: Any, case: Json, arguments: Json) -> Iterator[Any]:
        """Read a stream; cancel and resume it if the case requires that."""
        stream = case.get("stream")
        if stream is None:
            yield from client.sample_stream(**arguments)
            return
        rows = 0
        with closing(client.sample_stream(**arguments)) as chunks:
            for _ in range(stream["cancel_after"]):
                chunk = next(chunks)
                rows += len(chunk.received)
                yield chunk
        if stream["resume"]:
            rest = arguments["count"] - rows
            offset = arguments.get("offset", 0) + rows
            yield from client.sample_stream(**{**arguments, "count": rest, "offset": offset})

    def _through_stub(self, case: Json) -> CallResult:
        """Execute a call that the client would refuse to send, or whose trailers are checked."""
        service, _, name = case["rpc"].partition("/")
        is_stream = name in ("SampleStream", "Watch")
        if case["through"] == "bytes":
            make = (
                self._channel(case).unary_stream if is_stream else self._channel(case).unary_unary
            )
            method: Any = make(f"/{case['rpc']}")
            request: Any = self._folder.data(case["body"])
        else:
            method = getattr(_stub(service, self._channel(case)), name)
            request = self._message(name, case["request"])
        options = {
            "timeout": _timeout_s(case),
            "metadata": list(case.get("metadata", {}).items()),
        }
        call = method(request, **options) if is_stream else method.future(request, **options)
        timer = None
        if "cancel_after_ms" in case:
            timer = threading.Timer(case["cancel_after_ms"] / 1000, call.cancel)
            timer.start()
        try:
            replies = list(call) if is_stream else [_result(call)]
        finally:
            if timer is not None:
                timer.cancel()
        if case["through"] == "bytes":
            kind = getattr(generative_service_pb2, f"{name}Response")
            replies = [kind.FromString(reply) for reply in replies]
        return CallResult([_part_of_message(reply) for reply in replies])

    def _message(self, name: str, request: Json) -> Any:
        """Return the request message of a case, valid or not."""
        if name == "Check" or name == "Watch":
            return health_pb2.HealthCheckRequest(service=request["service"])
        for module in (generative_service_pb2, model_service_pb2):
            if hasattr(module, f"{name}Request"):
                message = getattr(module, f"{name}Request")()
        for key, value in request.items():
            if key == "model":
                message.model.CopyFrom(tensor_pb2.ModelRef(**value))
            elif key == "images" and "encoded" in value:
                message.images.encoded.SetInParent()
                message.images.encoded.files.extend(map(self._folder.file, value["encoded"]))
            elif key == "images":
                message.images.tensor.CopyFrom(self._tensor(value["tensor"]))
            elif key == "latents":
                message.latents.CopyFrom(self._tensor(value))
            elif key == "output_format":
                message.output_format = _enum(tensor_pb2.ImageFormat, "IMAGE_FORMAT_", value)
            elif key == "names":
                message.names.extend(value)
            elif key in ("count", "seed", "offset"):
                setattr(message, key, int(value))
            elif key == "temperature":
                message.temperature = float(value)
            else:
                setattr(message, key, value)
        return message

    def _tensor(self, tensor: Json) -> tensor_pb2.Tensor:
        return tensor_pb2.Tensor(
            data_type=_enum(tensor_pb2.DataType, "DATA_TYPE_", tensor["dtype"]),
            shape=tensor["shape"],
            data=self._folder.tensor_bytes(tensor),
        )


def _channel_key(case: Json) -> tuple[str, bool]:
    """Return the server of a case, and whether its calls are retried."""
    return case["server"], bool(case.get("retry"))


def _timeout_s(case: Json) -> float:
    return float(case.get("deadline_ms", DEFAULT_DEADLINE_MS)) / 1000


def _enum(kind: Any, prefix: str, name: str) -> Any:
    """Return an enum value by its name without prefix, or an unknown value by its number."""
    return int(name) if name.isdecimal() else kind.Value(prefix + name)


def _result(call: Any) -> Any:
    """Return the reply of a call. Raises an RpcError for a cancelled call too."""
    try:
        return call.result()
    except grpc.FutureCancelledError:
        raise call from None


def _stub(service: str, channel: grpc.Channel) -> Any:
    kind: Any = {
        "GenerativeService": generative_service_pb2_grpc.GenerativeServiceStub,
        "ModelService": model_service_pb2_grpc.ModelServiceStub,
        "Health": health_pb2_grpc.HealthStub,
    }[service.rpartition(".")[2]]
    return kind(channel)


def _part(result: Any) -> Part:
    """Convert a result of the client."""
    return Part(
        images=getattr(result, "received", None),
        latents=getattr(result, "latents", None),
        log_variance=getattr(result, "log_variance", None),
        squared_error=getattr(result, "squared_error", None),
        seed=getattr(result, "seed", None),
        offset=getattr(result, "offset", None),
        served_by=result.served_by,
        timings=result.timings,
    )


def _part_of_message(reply: Any) -> Part:
    """Convert a reply message of Sample or SampleStream."""
    return Part(
        images=from_images(reply.images),
        latents=from_tensor(reply.latents, rank=2) if reply.HasField("latents") else None,
        seed=reply.seed,
        offset=getattr(reply, "offset", None),
        served_by=reply.served_by,
        timings=reply.timings,
    )
