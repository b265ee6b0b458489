"""One call as bytes, of our own API and of the Open Inference Protocol, and what replies say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.models import Model, operation
from latentserve.v1 import generative_service_pb2 as generative
from latentserve.v1 import tensor_pb2
from latentserve_client.load.open_inference import messages_pb2 as oip
from latentserve_client.load.open_inference.tensors import read_infer

SERVICE = "/latentserve.v1.GenerativeService/"
INFER = "/inference.GRPCInferenceService/ModelInfer"
SEED = 7
TOLERANCE = 1e-3
CALL_TIMEOUT_S = 20.0
# A reply's Timings and its squared errors take some bytes more or fewer.
SPARE_BYTES = 32


class WrongReply(Exception):
    """A server does not answer what the graph alone gives; the text says how."""


@dataclass(frozen=True)
class Prepared:
    """A serialised request, and the bytes of a good reply, all its messages together."""

    method: str
    request: bytes
    reply_bytes: int


def own_request(model: Model, rpc: str, rows: int) -> bytes:
    """Return a request of our own API: float32 both ways."""
    ref = tensor_pb2.ModelRef(name=model.name)
    if rpc == "Sample":
        return generative.SampleRequest(model=ref, count=rows, seed=SEED).SerializeToString()
    if rpc == "SampleStream":
        return generative.SampleStreamRequest(model=ref, count=rows, seed=SEED).SerializeToString()
    array = model.rows(rpc, rows)
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()
    )
    if rpc == "Decode":
        return generative.DecodeRequest(model=ref, latents=tensor).SerializeToString()
    kind = getattr(generative, f"{rpc}Request")
    request: bytes = kind(model=ref, images=tensor_pb2.Images(tensor=tensor)).SerializeToString()
    return request


def oip_request(model: Model, rpc: str, rows: int) -> bytes:
    """Return a ModelInfer request for a model of a peer."""
    array = model.rows(rpc, rows)
    message = oip.ModelInferRequest(model_name=model.name)
    message.inputs.add(name=model.tensors(rpc)[0], datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message.SerializeToString()


def prepare(address: str, model: Model, rpc: str, rows: int, *, peer: bool) -> Prepared:
    """Make the call once with a real client, and check the answer.

    Raises WrongReply, or grpc.RpcError where there is none.
    """
    request = (oip_request if peer else own_request)(model, rpc, rows)
    method = INFER if peer else SERVICE + rpc
    with grpc.insecure_channel(address) as channel:
        if rpc == "SampleStream":
            stream = channel.unary_stream(method)(request, timeout=CALL_TIMEOUT_S)
            replies = list(stream)
        else:
            replies = [channel.unary_unary(method)(request, timeout=CALL_TIMEOUT_S)]
    answers = [_read_oip(reply) if peer else _read_own(rpc, reply) for reply in replies]
    _compare(np.concatenate(answers), model, rpc, rows)
    return Prepared(method, request, sum(len(reply) + 5 for reply in replies))


def empty(prepared: Prepared) -> Prepared:
    """Return the empty call that carries as many bytes there and back."""
    length = prepared.reply_bytes - 5
    return Prepared(f"/reply/{length}", prepared.request, prepared.reply_bytes)


def min_reply_bytes(prepared: Prepared) -> int:
    """Return what a good reply has at least."""
    return max(1, prepared.reply_bytes - SPARE_BYTES)


def _read_own(rpc: str, reply: bytes) -> NDArray[Any]:
    message = getattr(generative, f"{rpc}Response").FromString(reply)
    tensor = message.latents if rpc == "Encode" else message.images.tensor
    return np.frombuffer(tensor.data, np.float32).reshape(tuple(tensor.shape))


def _read_oip(reply: bytes) -> NDArray[Any]:
    outputs = [value for name, value in read_infer(reply).items() if name.startswith("output ")]
    if len(outputs) != 1 or not isinstance(outputs[0], np.ndarray):
        raise WrongReply(f"{len(outputs)} outputs, expected one array")
    return outputs[0]


def _compare(answer: NDArray[Any], model: Model, rpc: str, rows: int) -> None:
    if operation(rpc) == "sample":  # which latents were drawn is another test's concern
        if len(answer) != rows:
            raise WrongReply(f"{rpc} of {model.name}: {len(answer)} rows, expected {rows}")
        return
    expected = model.expected(rpc, rows)
    if answer.shape != expected.shape:
        raise WrongReply(
            f"{rpc} of {model.name}: {list(answer.shape)}, expected {list(expected.shape)}"
        )
    off = float(np.abs(answer - expected).max())
    if not off <= TOLERANCE:
        raise WrongReply(f"{rpc} of {model.name}: off by {off:g}, at most {TOLERANCE:g} expected")
