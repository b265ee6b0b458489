"""Ways to break the servers, each of which every runner must notice.

A broken server must be broken for callers alone: the parts inside stay whole, and what goes wrong is
put between them and the transport.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import Message

from latentserve.v1 import tensor_pb2
from latentserve_server import status
from latentserve_server.call import Call, Done, Reply, UnaryMethod
from latentserve_server.errors import CallError, FieldViolation, InvalidRequest
from latentserve_server.status import WireStatus
from latentserve_server.transport import Service

_DATA = ("encode", "decode", "reconstruct", "denoise", "forms", "large", "sample", "stream")

GROUPS: dict[str, tuple[str, ...]] = {
    "wrong-values": _DATA,
    "swapped-rows": _DATA,
    "wrong-seed": ("encode", "sample", "stream"),
    "lost-temperature": ("sample", "stream"),
    "ignored-format": ("denoise", "forms", "sample", "stream"),
    "wrong-model": _DATA,
    "wrong-offset": ("stream",),
    "truncated-stream": ("stream",),
    "wrong-code": ("errors", "retries"),
    "missing-details": ("errors", "retries"),
    "wrong-field": ("errors",),
    "no-pushback": ("errors",),
    "leaked-cause": ("errors",),
    "strict-fields": ("forms",),
    "impatient": ("deadlines",),
    "wrong-descriptions": ("models",),
    "unhealthy": ("health",),
}
"""The breakages, and the groups of cases in which a runner must find each."""

_OTHER_CODES = {"INVALID_ARGUMENT": "FAILED_PRECONDITION", "FAILED_PRECONDITION": "NOT_FOUND"}


class Breakage:
    """What is broken at present, in all servers of this process."""

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self._whole = status.wire_status
        # Both transports make every status of it.
        status.wire_status = self._wire_status

    def service(self, service: Service, role: str) -> Service:
        """Return a service whose methods break as this says."""
        unary = {name: self._unary(name, method, role) for name, method in service.unary.items()}
        streams = {
            name: self._stream(name, method, role) for name, method in service.streams.items()
        }
        return replace(service, unary=unary, streams=streams)

    def _unary(self, rpc: str, method: UnaryMethod, role: str) -> UnaryMethod:
        def broken(request: bytes, deadline: float | None, done: Done) -> Call:
            seed_shift = self._refuse(rpc, request, role)
            altered = self._request(rpc, request)
            return method(altered, deadline, self._done(rpc, done, seed_shift))

        return broken

    def _stream(self, rpc: str, method: Any, role: str) -> Any:
        def broken(request: bytes) -> Any:
            seed_shift = self._refuse(rpc, request, role)
            return _BrokenStream(self, rpc, method(self._request(rpc, request)), seed_shift)

        return broken

    def _refuse(self, rpc: str, request: bytes, role: str) -> int:
        """Refuse what a whole server takes; return what must be added to the reply's seed."""
        if self.name == "impatient" and role == "held":
            raise InvalidRequest("refused on purpose")
        if self.name == "strict-fields" and b"\xc2\x3e\x05hello" in request:
            raise InvalidRequest("an unknown field, refused on purpose")
        return 1 if self.name == "wrong-seed" else 0

    def _request(self, rpc: str, request: bytes) -> bytes:
        if self.name not in ("wrong-seed", "lost-temperature", "ignored-format"):
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
        return message.SerializeToString()

    def _done(self, rpc: str, done: Done, seed_shift: int) -> Done:
        return lambda reply: done(
            Reply(lambda: self._reply(rpc, reply.build(), seed_shift), reply.slow)
        )

    def _reply(self, rpc: str, data: bytes, seed_shift: int) -> bytes:
        if self.name == "none":
            return data
        message = _message(rpc, "Response")
        message.ParseFromString(data)
        if seed_shift and "seed" in message.DESCRIPTOR.fields_by_name and message.seed:
            message.seed ^= 1
        elif self.name == "wrong-model" and "served_by" in message.DESCRIPTOR.fields_by_name:
            message.served_by.digest = message.served_by.digest[::-1]
        elif self.name == "wrong-offset" and rpc == "SampleStream":
            message.offset += 1
        elif self.name in ("wrong-values", "swapped-rows"):
            _spoil_outputs(message, swap=self.name == "swapped-rows")
        elif self.name == "wrong-descriptions":
            _spoil_descriptions(rpc, message)
        return message.SerializeToString()

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
        made = self._whole(error, request_id=request_id)
        if name == "no-pushback":
            kept = [pair for pair in made.trailers if pair[0] != "grpc-retry-pushback-ms"]
            made = replace(made, trailers=tuple(kept))
        return made


class _BrokenStream:
    """A stream of chunks that may end too early."""

    def __init__(self, breakage: Breakage, rpc: str, stream: Any, seed_shift: int) -> None:
        self._breakage = breakage
        self._rpc = rpc
        self._stream = stream
        self._seed_shift = seed_shift
        self._begun = False

    @property
    def exhausted(self) -> bool:
        """Whether it ends here."""
        cut = self._begun and self._breakage.name == "truncated-stream"
        return cut or bool(self._stream.exhausted)

    def next_chunk(self, deadline: float | None, done: Done) -> Call:
        """Ask for the next chunk."""
        self._begun = True
        broken = self._breakage._done(self._rpc, done, self._seed_shift)
        call: Call = self._stream.next_chunk(deadline, broken)
        return call


def _message(rpc: str, kind: str) -> Any:
    from latentserve.v1 import generative_service_pb2, model_service_pb2

    for module in (generative_service_pb2, model_service_pb2):
        if hasattr(module, rpc + kind):
            return getattr(module, rpc + kind)()
    raise KeyError(rpc)


_DTYPES = {
    tensor_pb2.DATA_TYPE_FLOAT32: "<f4",
    tensor_pb2.DATA_TYPE_FLOAT16: "<f2",
    tensor_pb2.DATA_TYPE_UINT8: "u1",
}


def _spoil_outputs(message: Any, *, swap: bool) -> None:
    """Change one value by a little, or the order of rows, in every output of a reply."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in ("latents", "log_variance"):
        if name in fields and message.HasField(name):
            _spoil_tensor(getattr(message, name), swap=swap)
    if "images" in fields and message.HasField("images"):
        if message.images.HasField("tensor"):
            _spoil_tensor(message.images.tensor, swap=swap)
        else:
            files = list(message.images.encoded.files)
            del message.images.encoded.files[:]
            message.images.encoded.files.extend(files[::-1] if swap else [files[-1]] * len(files))


def _spoil_tensor(tensor: tensor_pb2.Tensor, *, swap: bool) -> None:
    array = np.frombuffer(tensor.data, _DTYPES[tensor.data_type]).reshape(tensor.shape).copy()
    if swap:
        array = np.roll(array, 1, axis=0)
    else:
        flat = array.reshape(-1)
        flat[-1] = flat[-1] + 5 if array.dtype == np.uint8 else flat[-1] + array.dtype.type(0.01)
    tensor.data = array.tobytes()


def _spoil_descriptions(rpc: str, message: Message) -> None:
    models: list[Any] = []
    if rpc == "ListModels":
        models = list(message.models)  # type: ignore[attr-defined]
    elif rpc == "GetModel":
        models = [message.model]  # type: ignore[attr-defined]
    for model in models:
        model.kind += "?"
    if rpc == "ReloadModels":
        del message.outcomes[-1]  # type: ignore[attr-defined]
