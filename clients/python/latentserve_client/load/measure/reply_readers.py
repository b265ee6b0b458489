"""Readers of latentserve replies: serialized message to comparable parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentserve.v1 import generative_service_pb2 as pb
from latentserve_client._codec import from_images, from_tensor
from latentserve_client._results import read_pixels
from latentserve_client.load.measure.validation import ReplyParts, ReplyReader


def read_encode(reply: bytes) -> ReplyParts:
    """Return the parts of an EncodeResponse."""
    message = pb.EncodeResponse.FromString(reply)
    parts: dict[str, Any] = {
        "latents": from_tensor(message.latents, rank=2),
        "seed": message.seed if message.HasField("seed") else None,
        "digest": message.served_by.digest,
    }
    if message.HasField("log_variance"):
        parts["log_variance"] = from_tensor(message.log_variance, rank=2)
    return parts


def read_decode(reply: bytes) -> ReplyParts:
    """Return the parts of a DecodeResponse."""
    return _images(pb.DecodeResponse.FromString(reply))


def read_reconstruct(reply: bytes) -> ReplyParts:
    """Return the parts of a ReconstructResponse."""
    message = pb.ReconstructResponse.FromString(reply)
    return {"squared_error": np.array(message.squared_error, np.float32), **_images(message)}


def read_denoise(reply: bytes) -> ReplyParts:
    """Return the parts of a DenoiseResponse."""
    return _images(pb.DenoiseResponse.FromString(reply))


def read_sample(reply: bytes) -> ReplyParts:
    """Return the parts of a SampleResponse."""
    return _sampled(pb.SampleResponse.FromString(reply))


def read_stream(reply: bytes) -> ReplyParts:
    """Return the parts of one message of SampleStream."""
    message = pb.SampleStreamResponse.FromString(reply)
    return {"offset": message.offset, **_sampled(message)}


def read_nothing(reply: bytes) -> ReplyParts:
    """Return no parts, for calls whose replies vary, such as health."""
    return {}


READERS: dict[str, ReplyReader] = {
    "Encode": read_encode,
    "Decode": read_decode,
    "Reconstruct": read_reconstruct,
    "Denoise": read_denoise,
    "Sample": read_sample,
    "SampleStream": read_stream,
}


def reader(method: str) -> ReplyReader:
    """Return the reader of the replies of a gRPC method."""
    return READERS.get(method.rpartition("/")[2], read_nothing)


def joined(messages: list[ReplyParts]) -> ReplyParts:
    """Return the parts of one message, or those of a stream's messages joined by rows."""
    if len(messages) == 1:
        return messages[0]
    first = messages[0]
    return {
        name: np.concatenate([m[name] for m in messages]) if isinstance(v, np.ndarray) else v
        for name, v in first.items()
    }


def _images(message: Any) -> dict[str, Any]:
    received = from_images(message.images)
    if not isinstance(received, np.ndarray):
        # Compare decoded pixels: rounding may differ by one, compressed bytes by any amount.
        received = np.stack([read_pixels(file) for file in received])
    return {"images": received, "digest": message.served_by.digest}


def _sampled(message: Any) -> dict[str, Any]:
    parts = {"seed": message.seed, **_images(message)}
    if message.HasField("latents"):
        parts["latents"] = from_tensor(message.latents, rank=2)
    return parts
