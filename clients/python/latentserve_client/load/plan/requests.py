"""Requests of the latentserve API, checked against the models and serialized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from grpc_health.v1 import health_pb2
from numpy.typing import NDArray

from latentserve.v1 import generative_service_pb2 as generative_pb2
from latentserve.v1 import model_service_pb2, tensor_pb2
from latentserve_client._checks import image_format, to_ref
from latentserve_client._client import Client
from latentserve_client._codec import to_tensor
from latentserve_client._models import Model
from latentserve_client.load.plan.inputs import ImageSource, to_files
from latentserve_client.load.plan.mix import (
    IMAGE_CALLS,
    PLAIN_CALLS,
    SAMPLING_CALLS,
    BadMix,
    MixEntry,
)
from latentserve_client.load.plan.workload import CallKind, Request, Workload

_SERVICE = "/latentserve.v1.GenerativeService/"
_MODELS = "/latentserve.v1.ModelService/"
_PLAIN: dict[str, tuple[str, Callable[[MixEntry], Any]]] = {
    "health": ("/grpc.health.v1.Health/Check", lambda _: health_pb2.HealthCheckRequest()),
    "models": (_MODELS + "ListModels", lambda _: model_service_pb2.ListModelsRequest()),
    "model": (
        _MODELS + "GetModel",
        lambda entry: model_service_pb2.GetModelRequest(model=to_ref(entry.model)),
    ),
    "reload": (_MODELS + "ReloadModels", lambda _: model_service_pb2.ReloadModelsRequest()),
}
# Method, and field number of Timings in the reply.
_METHODS = {
    "encode": ("Encode", 5),
    "decode": ("Decode", 3),
    "reconstruct": ("Reconstruct", 4),
    "denoise": ("Denoise", 3),
    "sample": ("Sample", 5),
    "stream": ("SampleStream", 6),
}
_NOISE_SIGMA = 0.3
_MAX_POOL_BYTES = 256 * 2**20


def look_up(client: Client, entries: Sequence[MixEntry]) -> tuple[Model | None, ...]:
    """Return the model of each entry, None for calls without a model.

    Raises LatentserveError for an unknown model, BadMix for an unsupported call.
    """
    known: dict[str | None, Model] = {}
    models: list[Model | None] = []
    for entry in entries:
        if entry.call in PLAIN_CALLS:
            models.append(None)
            continue
        if entry.model not in known:
            known[entry.model] = client.model(entry.model)
        model = known[entry.model]
        _check(entry, model)
        models.append(model)
    return tuple(models)


def build(
    entries: Sequence[MixEntry],
    models: Sequence[Model | None],
    images: ImageSource,
    *,
    pool: int,
    seed: int,
) -> Workload:
    """Return a workload with up to `pool` distinct serialized requests per entry."""
    kinds: list[CallKind] = []
    requests: list[Request] = []
    for number, (entry, model) in enumerate(zip(entries, models, strict=True)):
        if model is None:
            method, message = _PLAIN[entry.call]
            kinds.append(CallKind(entry.label(entry.model or ""), method, entry.weight))
            payload = message(entry).SerializeToString()
            requests.append(Request(len(requests), number, payload, rows=0))
            continue
        method, field = _METHODS[entry.call]
        kinds.append(
            CallKind(
                entry.label(model.ref),
                _SERVICE + method,
                entry.weight,
                entry.call == "stream",
                field,
            )
        )
        # One seed per kind: the requests of a kind do not depend on the other kinds.
        rng = np.random.default_rng((seed, number))
        sizes = entry.rows.sample(pool, _max_rows(entry, model), rng)
        used = 0
        for position, rows in enumerate(sizes):
            payload = _message(entry, model, images, rows, seed + position).SerializeToString()
            used += len(payload)
            if used > _MAX_POOL_BYTES and position:
                break
            requests.append(Request(len(requests), number, payload, rows))
    return Workload(tuple(kinds), tuple(requests))


def _check(entry: MixEntry, model: Model) -> None:
    needed = "sample" if entry.call in SAMPLING_CALLS else entry.call
    if model.state != "ready":
        raise BadMix(
            f"{model.ref} is {model.state}, not ready" + f": {model.reason}" * bool(model.reason)
        )
    if needed not in model.operations:
        raise BadMix(
            f"{entry.call}: {model.ref} does not support {needed}; "
            f"it supports {', '.join(model.operations)}"
        )
    if entry.draw and not model.latent.has_log_variance:
        raise BadMix(f"{entry.call}: {model.ref} has no log-variance to sample with")
    largest, limit = entry.rows.largest, _max_rows(entry, model)
    if largest is not None and largest > limit:
        raise BadMix(
            f"{entry.call}: {largest} rows; {model.ref} on this server accepts 1 to {limit}"
        )


def _max_rows(entry: MixEntry, model: Model) -> int:
    limits = model.limits
    return limits.max_stream_rows if entry.call == "stream" else limits.max_request_rows


def _message(entry: MixEntry, model: Model, images: ImageSource, rows: int, seed: int) -> Any:
    build_one: Callable[[MixEntry, Model, ImageSource, int, int], Any]
    if entry.call in IMAGE_CALLS:
        build_one = _image_request
    elif entry.call == "decode":
        build_one = _latent_request
    else:
        build_one = _sample_request
    return build_one(entry, model, images, rows, seed)


def _image_request(entry: MixEntry, model: Model, images: ImageSource, rows: int, seed: int) -> Any:
    pixels = images.fitted(model.image, rows, seed * 7919)
    if entry.call == "denoise" and entry.dtype in ("float32", "float16"):
        noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
        sent = _images(pixels / np.float32(255) + np.float32(_NOISE_SIGMA) * noise, entry.dtype)
    elif entry.dtype in ("png", "jpeg"):
        files = to_files(pixels, entry.dtype)
        sent = tensor_pb2.Images(encoded=tensor_pb2.EncodedImages(files=files))
    elif entry.dtype == "uint8":
        sent = tensor_pb2.Images(tensor=to_tensor(pixels))
    else:
        sent = _images(pixels / np.float32(255), entry.dtype)
    ref = to_ref(entry.model)  # unresolved, because a reload may load a newer version
    if entry.call == "encode":
        return generative_pb2.EncodeRequest(
            model=ref, images=sent, seed=seed if entry.draw else None
        )
    kind = (
        generative_pb2.ReconstructRequest
        if entry.call == "reconstruct"
        else generative_pb2.DenoiseRequest
    )
    return kind(model=ref, images=sent, output_format=image_format(entry.format))


def _latent_request(entry: MixEntry, model: Model, _: ImageSource, rows: int, seed: int) -> Any:
    latents = np.random.default_rng(seed).standard_normal((rows, model.latent.dim), np.float32)
    return generative_pb2.DecodeRequest(
        model=to_ref(entry.model),
        latents=to_tensor(latents.astype(entry.dtype)),
        output_format=image_format(entry.format),
    )


def _sample_request(entry: MixEntry, model: Model, _: ImageSource, rows: int, seed: int) -> Any:
    common: dict[str, Any] = {
        "model": to_ref(entry.model),
        "count": rows,
        "seed": seed,
        "temperature": entry.temperature,
        "output_format": image_format(entry.format),
        "include_latents": entry.latents,
    }
    if entry.call == "stream":
        return generative_pb2.SampleStreamRequest(**common, chunk_rows=entry.chunk)
    return generative_pb2.SampleRequest(**common)


def _images(array: NDArray[Any], dtype: str) -> tensor_pb2.Images:
    return tensor_pb2.Images(tensor=to_tensor(array.astype(dtype)))
