"""Breakages of the servers; every runner must detect each of them.

The server itself is unchanged: the faults are injected between it and the transport.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import Message

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2
from latentserve_server import status
from latentserve_server.errors import CallError, FieldViolation, InvalidRequest
from latentserve_server.services.call import Call, Done, Reply, UnaryMethod
from latentserve_server.status import WireStatus
from latentserve_server.transport.base import Service

_DATA = ("encode", "decode", "reconstruct", "denoise", "forms", "large", "sample", "stream")

GROUPS: dict[str, tuple[str, ...]] = {
    "wrong-values": _DATA,
    "swapped-rows": _DATA,
    "wrong-seed": ("encode", "sample", "stream"),
    "lost-temperature": ("sample", "stream"),
    "ignored-format": ("denoise", "forms", "sample", "stream"),
    "wrong-model": _DATA,
    "no-timings": _DATA,
    "wrong-error": ("reconstruct", "forms", "large"),
    "lost-log-variance": ("encode", "large"),
    "unasked-latents": ("sample",),
    "wrong-offset": ("stream",),
    "truncated-stream": ("stream",),
    "wrong-code": ("errors", "retries"),
    "missing-details": ("errors", "retries"),
    "wrong-domain": ("errors", "retries"),
    "lost-metadata": ("errors", "retries"),
    "wrong-field": ("errors",),
    "no-pushback": ("errors",),
    "leaked-cause": ("errors",),
    "strict-fields": ("forms",),
    "impatient": ("deadlines",),
    "wrong-descriptions": ("models",),
    "unhealthy": ("health",),
}
"""Breakages, with the groups of cases in which a runner must detect each."""

UNKNOWN_FIELD = b"\xc2\x3e\x05hello"
"""Field 1000, as the case with an unknown field sends it."""

_DOMAIN = status.DOMAIN
_REQUEST_BREAKAGES = ("wrong-seed", "lost-temperature", "ignored-format", "unasked-latents")
_OTHER_CODES = {"INVALID_ARGUMENT": "FAILED_PRECONDITION", "FAILED_PRECONDITION": "NOT_FOUND"}


class Breakage:
    """The current breakage of all servers of this process."""

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self._make_status = status.wire_status
        # Both transports create every status with this function.
        status.wire_status = self._wire_status

    def service(self, service: Service, role: str) -> Service:
        """Return a service whose methods have the current breakage."""
        unary = {name: self._unary(name, method, role) for name, method in service.unary.items()}
        streams = {
            name: self._stream(name, method, role) for name, method in service.streams.items()
        }
        return replace(service, unary=unary, streams=streams)

    def _unary(self, rpc: str, method: UnaryMethod, role: str) -> UnaryMethod:
        def broken(request: bytes, deadline: float | None, done: Done) -> Call:
            self._refuse(request, role)
            return method(self._request(rpc, request), deadline, self.done(rpc, done))

        return broken

    def _stream(self, rpc: str, method: Any, role: str) -> Any:
        def broken(request: bytes) -> Any:
            self._refuse(request, role)
            return _BrokenStream(self, rpc, method(self._request(rpc, request)))

        return broken

    def _refuse(self, request: bytes, role: str) -> None:
        """Refuse requests that a correct server accepts."""
        if self.name == "impatient" and role == "held":
            raise InvalidRequest("refused by the test server")
        if self.name == "strict-fields" and UNKNOWN_FIELD in request:
            raise InvalidRequest("an unknown field, refused by the test server")

    def _request(self, rpc: str, request: bytes) -> bytes:
        if self.name not in _REQUEST_BREAKAGES:
            return request
        message = _message(rpc, "Request")
        message.ParseFromString(request)
        fields = message.DESCRIPTOR.fields_by_name
        if self.name == "wrong-seed" and "seed" in fields and message.HasField("seed"):
            message.seed ^= 1
        elif self.name == "lost-temperature" and "temperature" in fields:
            message.ClearField("temperature")
        elif self.name == "ignored-format" and "output_format" in fields:
            message.ClearField("output_format")
        elif self.name == "unasked-latents" and "include_latents" in fields:
            message.include_latents = True
        changed: bytes = message.SerializeToString()
        return changed

    def done(self, rpc: str, done: Done) -> Done:
        """Return a callback that corrupts the reply before it forwards it."""
        return lambda reply: done(Reply(lambda: self._reply(rpc, reply.build()), reply.slow))

    def _reply(self, rpc: str, data: bytes) -> bytes:
        if self.name == "none":
            return data
        message = _message(rpc, "Response")
        message.ParseFromString(data)
        fields = message.DESCRIPTOR.fields_by_name
        if self.name == "wrong-seed":
            # The samples have another seed; the reply contains the requested one.
            seed = fields.get("seed")
            if seed is not None and (not seed.has_presence or message.HasField("seed")):
                message.seed ^= 1
        elif self.name == "wrong-model" and "served_by" in fields:
            message.served_by.digest = message.served_by.digest[::-1]
        elif self.name == "no-timings" and "timings" in fields:
            message.ClearField("timings")
        elif self.name == "wrong-error" and "squared_error" in fields:
            message.squared_error[0] += 1
        elif self.name == "lost-log-variance" and "log_variance" in fields:
            message.ClearField("log_variance")
        elif self.name == "wrong-offset" and rpc == "SampleStream":
            message.offset += 1
        elif self.name in ("wrong-values", "swapped-rows"):
            _corrupt_outputs(message, swap=self.name == "swapped-rows")
        elif self.name == "wrong-descriptions":
            _corrupt_descriptions(rpc, message)
        changed: bytes = message.SerializeToString()
        return changed

    def _wire_status(self, error: CallError, *, request_id: str) -> WireStatus:
        name = self.name
        if name == "wrong-code":
            other = CallError(
                error.message,
                metadata=error.metadata,
                violations=error.violations,
                retry_after_s=error.retry_after_s,
            )
            other.code, other.reason = _OTHER_CODES.get(error.code, "ABORTED"), error.reason
            error = other
        elif name == "missing-details":
            other = CallError(error.message)
            other.code = error.code
            error = other
        elif name == "wrong-field":
            error.violations = tuple(
                FieldViolation("request", violation.description) for violation in error.violations
            )
        elif name == "leaked-cause" and error.code == "INTERNAL":
            other = CallError(error.message)
            other.code, other.reason = error.code, error.reason
            error = other
        elif name == "lost-metadata":
            error.metadata = {}
        status.DOMAIN = "elsewhere" if name == "wrong-domain" else _DOMAIN
        made = self._make_status(error, request_id=request_id)
        if name == "no-pushback":
            kept = [pair for pair in made.trailers if pair[0] != "grpc-retry-pushback-ms"]
            made = replace(made, trailers=tuple(kept))
        return made


class _BrokenStream:
    """Stream of chunks that may end too early."""

    def __init__(self, breakage: Breakage, rpc: str, stream: Any) -> None:
        self._breakage = breakage
        self._rpc = rpc
        self._stream = stream
        self._begun = False

    @property
    def exhausted(self) -> bool:
        """Whether the stream has ended."""
        cut = self._begun and self._breakage.name == "truncated-stream"
        return cut or bool(self._stream.exhausted)

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Request the next chunk."""
        self._begun = True
        broken = self._breakage.done(self._rpc, done)
        call: Call = self._stream.next_chunk(deadline, broken)
        return call


def _message(rpc: str, kind: str) -> Any:
    for module in (generative_service_pb2, model_service_pb2):
        if hasattr(module, rpc + kind):
            return getattr(module, rpc + kind)()
    raise KeyError(rpc)


_DTYPES = {
    tensor_pb2.DATA_TYPE_FLOAT32: "<f4",
    tensor_pb2.DATA_TYPE_FLOAT16: "<f2",
    tensor_pb2.DATA_TYPE_UINT8: "u1",
}


def _corrupt_outputs(message: Any, *, swap: bool) -> None:
    """Change one value slightly, or the order of rows, in every output of a reply."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in ("latents", "log_variance"):
        if name in fields and message.HasField(name):
            _corrupt_tensor(getattr(message, name), swap=swap)
    if "images" in fields and message.HasField("images"):
        if message.images.HasField("tensor"):
            _corrupt_tensor(message.images.tensor, swap=swap)
        else:
            files = list(message.images.encoded.files)
            del message.images.encoded.files[:]
            message.images.encoded.files.extend(files[::-1] if swap else [files[-1]] * len(files))


def _corrupt_tensor(tensor: tensor_pb2.Tensor, *, swap: bool) -> None:
    array = np.frombuffer(tensor.data, _DTYPES[tensor.data_type]).reshape(tensor.shape).copy()
    if swap:
        array = np.roll(array, 1, axis=0)
    else:
        flat = array.reshape(-1)
        flat[-1] = flat[-1] + 5 if array.dtype == np.uint8 else flat[-1] + array.dtype.type(0.01)
    tensor.data = array.tobytes()


def _corrupt_descriptions(rpc: str, message: Message) -> None:
    models: list[Any] = []
    if rpc == "ListModels":
        models = list(message.models)  # type: ignore[attr-defined]
    elif rpc == "GetModel":
        models = [message.model]  # type: ignore[attr-defined]
    for model in models:
        model.kind += "?"
    if rpc == "ReloadModels":
        del message.outcomes[-1]  # type: ignore[attr-defined]
