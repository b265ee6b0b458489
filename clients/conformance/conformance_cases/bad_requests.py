"""Cases of invalid requests, one for each reason of refusal."""

from __future__ import annotations

import numpy as np

from conformance_cases.case_files import Json, zeros
from conformance_cases.suite import (
    GENERATIVE,
    MAX_REQUEST_ROWS,
    MAX_STREAM_ROWS,
    MODELS,
    SAMPLE,
    Suite,
    error,
    ok,
)
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2

_IMAGE_BYTES = 28 * 28 * 4


def add(suite: Suite) -> None:
    """Add most of the group errors."""
    _bad_tensors(suite)
    _bad_values(suite)
    _bad_files(suite)
    _bad_samples(suite)
    _bad_models(suite)
    _bad_bytes(suite)


def _invalid(*fields: str) -> Json:
    return error("INVALID_ARGUMENT", "INVALID_REQUEST", violations=list(fields))


def _images(dtype: str, shape: list[int], byte_count: int) -> Json:
    return {"images": {"tensor": zeros(dtype, shape, byte_count)}}


def _bad_tensors(suite: Suite) -> None:
    one = [1, 1, 28, 28]
    shape, data_type, data = (f"images.tensor.{part}" for part in ("shape", "data_type", "data"))
    table: dict[str, tuple[Json, str]] = {
        "rank": (_images("FLOAT32", [1, 784], _IMAGE_BYTES), shape),
        "height": (_images("FLOAT32", [1, 1, 32, 28], 32 * 28 * 4), shape),
        "channels": (_images("UINT8", [1, 3, 28, 28], 3 * 28 * 28), shape),
        "no-rows": (_images("FLOAT32", [0, 1, 28, 28], 0), shape),
        "negative-rows": (_images("FLOAT32", [-1, 1, 28, 28], 0), shape),
        "absurd-rows": (_images("FLOAT32", [2**52, 1, 28, 28], 0), shape),
        "too-many-rows": (
            _images("UINT8", [MAX_REQUEST_ROWS + 1, 1, 28, 28], (MAX_REQUEST_ROWS + 1) * 784),
            shape,
        ),
        "no-data-type": (_images("UNSPECIFIED", one, _IMAGE_BYTES), data_type),
        "unknown-data-type": (_images("77", one, _IMAGE_BYTES), data_type),
        "too-few-bytes": (_images("FLOAT32", one, _IMAGE_BYTES - 1), data),
        "too-many-bytes": (_images("FLOAT32", one, _IMAGE_BYTES + 1), data),
        "no-images": ({}, "images"),
    }
    for name, (request, field) in table.items():
        suite.case(
            f"errors/images-{name}",
            GENERATIVE + "Encode",
            {"model": suite.ref("mnist-vae"), **request},
            _invalid(field),
            through="stub",
        )
    for name, rpc, model in (
        ("reconstruct", "Reconstruct", "mnist-vae"),
        ("denoise", "Denoise", "mnist-dae"),
    ):
        suite.case(
            f"errors/{name}-height",
            GENERATIVE + rpc,
            {"model": suite.ref(model), **_images("FLOAT32", [1, 1, 32, 28], 32 * 28 * 4)},
            _invalid(shape),
            through="stub",
        )
    latents: dict[str, tuple[Json, str]] = {
        "dim": (zeros("FLOAT32", [1, 19], 76), "latents.shape"),
        "uint8": (zeros("UINT8", [1, 20], 20), "latents.data_type"),
        "too-few-bytes": (zeros("FLOAT32", [1, 20], 79), "latents.data"),
        "too-many-rows": (
            zeros("FLOAT32", [MAX_REQUEST_ROWS + 1, 20], (MAX_REQUEST_ROWS + 1) * 80),
            "latents.shape",
        ),
    }
    for name, (tensor, field) in latents.items():
        suite.case(
            f"errors/latents-{name}",
            GENERATIVE + "Decode",
            {"model": suite.ref("mnist-vae"), "latents": tensor},
            _invalid(field),
            through="stub",
        )


def _bad_values(suite: Suite) -> None:
    """Add tensors of valid shape and dtype whose values no model accepts."""
    for name, value in (("nan", np.nan), ("infinity", np.inf), ("0-to-255", 255.0)):
        images = np.zeros((2, 1, 28, 28), np.float32)
        images[1, 0, 3, 4] = value
        tensor = suite.files.tensor(f"errors-{name}", images[1:])
        suite.case(
            f"errors/images-{name}",
            GENERATIVE + "Reconstruct",
            {"model": suite.ref("mnist-vae"), "images": {"tensor": tensor}},
            _invalid("images.tensor.data"),
            through="stub",
        )
    noisy = np.full((1, 1, 28, 28), 10.5, np.float32)
    suite.case(
        "errors/denoise-beyond-10",
        GENERATIVE + "Denoise",
        {
            "model": suite.ref("mnist-dae"),
            "images": {"tensor": suite.files.tensor("errors-noisy", noisy)},
        },
        _invalid("images.tensor.data"),
        through="stub",
    )
    for name, value in (("nan", np.nan), ("infinity", -np.inf)):
        latents = np.zeros((1, 20), np.float32)
        latents[0, 7] = value
        suite.case(
            f"errors/latents-{name}",
            GENERATIVE + "Decode",
            {
                "model": suite.ref("mnist-vae"),
                "latents": suite.files.tensor(f"errors-latents-{name}", latents),
            },
            _invalid("latents.data"),
            through="stub",
        )


def _bad_files(suite: Suite) -> None:
    files = suite.files
    good = files.image_file("digit-5", suite.digits[5])
    corrupt = files.add("corrupt.png", b"\x89PNG\r\n\x1a\ncorrupt")
    cut = files.add("cut.png", files.contents[good][:60])
    large = files.image_file("large", np.zeros((32, 28), np.uint8))
    table = {
        "unreadable": ([corrupt], [0]),
        "cut-short": ([good, cut], [1]),
        "wrong-size": ([good, large, good], [1]),
        "two-bad": ([corrupt, good, large], [0, 2]),
    }
    for name, (sent, bad) in table.items():
        suite.case(
            f"errors/file-{name}",
            GENERATIVE + "Encode",
            {"model": suite.ref("mnist-vae"), "images": {"encoded": sent}},
            _invalid(*(f"images.encoded.files[{index}]" for index in bad)),
            through="stub",
        )
    suite.case(
        "errors/no-files",
        GENERATIVE + "Encode",
        {"model": suite.ref("mnist-vae"), "images": {"encoded": []}},
        _invalid("images.encoded.files"),
        through="stub",
    )


def _bad_samples(suite: Suite) -> None:
    table: dict[str, tuple[Json, str]] = {
        "count-absent": ({}, "count"),
        "count-negative": ({"count": "-1"}, "count"),
        "count-too-large": ({"count": str(MAX_REQUEST_ROWS + 1)}, "count"),
        "offset-negative": ({"count": "1", "offset": "-1"}, "offset"),
        "offset-too-large": ({"count": "1", "offset": str(2**62 + 1)}, "offset"),
        "temperature-too-high": ({"count": "1", "temperature": 10.5}, "temperature"),
        "temperature-negative": ({"count": "1", "temperature": -0.5}, "temperature"),
        "temperature-nan": ({"count": "1", "temperature": "NaN"}, "temperature"),
        "output-format": ({"count": "1", "output_format": "9"}, "output_format"),
    }
    for name, (request, field) in table.items():
        suite.case(
            f"errors/{name}",
            GENERATIVE + "Sample",
            {"model": suite.ref("mnist-vae"), **request},
            _invalid(field),
            through="stub",
        )
    for name, request, field in (
        ("stream-count", {"count": str(MAX_STREAM_ROWS + 1)}, "count"),
        ("stream-chunk-rows", {"count": "1", "chunk_rows": MAX_REQUEST_ROWS + 1}, "chunk_rows"),
    ):
        suite.case(
            f"errors/{name}",
            GENERATIVE + "SampleStream",
            {"model": suite.ref("mnist-vae"), **request},
            _invalid(field),
            through="stub",
        )


def _bad_models(suite: Suite) -> None:
    sample: Json = {"count": "1", "seed": "1"}
    digits = {"images": {"tensor": suite.files.tensor("digits-0-2", suite.uint8(0, 2))}}
    missing = error("NOT_FOUND", "MODEL_NOT_FOUND", metadata_keys=["models"])
    lacking = error("FAILED_PRECONDITION", "OPERATION_NOT_SUPPORTED", metadata_keys=["operations"])
    calls: list[tuple[str, str, Json, Json, Json]] = [
        ("unknown-model", "Sample", {"name": "mnist-vea"}, sample, missing),
        ("unknown-model-stream", "SampleStream", {"name": "mnist-vea"}, sample, missing),
        ("unknown-version", "Sample", {"name": "mnist-vae", "version": 99}, sample, missing),
        ("encode-on-a-gan", "Encode", {"name": "mnist-gan"}, digits, lacking),
        ("reconstruct-on-a-gan", "Reconstruct", {"name": "mnist-gan"}, digits, lacking),
        ("denoise-on-a-vae", "Denoise", {"name": "mnist-vae"}, digits, lacking),
        ("sample-without-a-prior", "Sample", {"name": "mnist-dae"}, sample, lacking),
        ("stream-without-a-prior", "SampleStream", {"name": "mnist-dae"}, sample, lacking),
        (
            "seed-without-log-variance",
            "Encode",
            {"name": "mnist-ae"},
            {**digits, "seed": "1"},
            lacking,
        ),
    ]
    for name, rpc, model, request, expect in calls:
        suite.case(f"errors/{name}", GENERATIVE + rpc, {"model": model, **request}, expect)
    suite.case(
        "errors/negative-version",
        GENERATIVE + "Sample",
        {"model": {"name": "mnist-vae", "version": -1}, **sample},
        _invalid("model.version"),
        through="stub",
    )
    suite.case(
        "errors/get-unknown-model", MODELS + "GetModel", {"model": {"name": "mnist-vea"}}, missing
    )
    suite.case(
        "errors/reload-unknown-model", MODELS + "ReloadModels", {"names": ["mnist-vea"]}, missing
    )


def _bad_bytes(suite: Suite) -> None:
    """Add requests as raw bytes: invalid messages, unknown fields, an unknown method."""
    broken = suite.files.add("no-message.bin", b"\xff\xff\xff")
    for rpc in ("Encode", "SampleStream"):
        suite.case(
            f"errors/no-message-{rpc.lower()}",
            GENERATIVE + rpc,
            None,
            _invalid(),
            through="bytes",
            body={"file": broken},
        )
    suite.case(
        "errors/no-such-method",
        GENERATIVE + "Dream",
        None,
        error("UNIMPLEMENTED"),
        through="bytes",
        body={"zeros": 0},
    )
    # Above the size limit of the server; the error comes from gRPC itself, without details.
    suite.case(
        "errors/message-too-large",
        GENERATIVE + "Encode",
        {
            "model": suite.ref("mnist-vae"),
            "images": {"tensor": zeros("UINT8", [16_000, 1, 28, 28], 16_000 * 784)},
        },
        error("RESOURCE_EXHAUSTED"),
        through="stub",
    )
    model = suite.models["mnist-vae"]
    request = pb.SampleRequest(
        model=tensor_pb2.ModelRef(name="mnist-vae"), count=2, seed=11, include_latents=True
    ).SerializeToString()
    # Field 1000 with 5 bytes, as a client of a later version might send it.
    unknown = suite.files.add("unknown-field.bin", request + b"\xc2\x3e\x05hello")
    latents = model.sample_latents(11, 0, 2)
    suite.case(
        "forms/unknown-field-is-ignored",
        GENERATIVE + "Sample",
        None,
        ok(
            suite.served_by("mnist-vae"),
            latents=suite.files.expected("unknown-field-latents", latents, SAMPLE),
            images=suite.images("unknown-field-images", model.run("sample", latents)[0]),
            seed="11",
        ),
        through="bytes",
        body={"file": unknown},
    )
