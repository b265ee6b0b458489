"""Cases of Sample and SampleStream with exact latents."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance_cases.case_files import Json
from conformance_cases.suite import GENERATIVE, MIXTURE_SAMPLE, SAMPLE, Suite, ok

_HUGE_OFFSET = 2**62


def add(suite: Suite) -> None:
    """Add the groups sample and stream."""
    _sample(suite)
    _stream(suite)


def _sample(suite: Suite) -> None:
    for name, model in suite.models.items():
        if "sample" in model.manifest["operations"]:
            _sample_case(suite, f"sample/{name}", name, count=3, seed=11)
    vae, mixture = "mnist-vae", "mnist-ae"
    _sample_case(suite, "sample/seed-0", vae, count=2, seed=0)
    _sample_case(suite, "sample/seed-of-64-bits", vae, count=2, seed=2**64 - 1)
    _sample_case(suite, "sample/seed-above-2-to-53", vae, count=2, seed=2**53 + 1)
    _sample_case(suite, "sample/offset", vae, count=2, seed=11, offset=5)
    _sample_case(suite, "sample/offset-above-2-to-53", vae, count=2, seed=11, offset=2**53 + 1)
    _sample_case(suite, "sample/offset-largest", vae, count=1, seed=11, offset=_HUGE_OFFSET)
    for prefix, prior_model in (("", vae), ("mixture-", mixture)):
        _sample_case(
            suite, f"sample/{prefix}temperature", prior_model, count=2, seed=11, temperature=0.5
        )
        _sample_case(
            suite, f"sample/{prefix}temperature-0", prior_model, count=2, seed=11, temperature=0.0
        )
    _sample_case(suite, "sample/mixture-offset", mixture, count=3, seed=2**64 - 1, offset=1000)
    for form in ("FLOAT16", "UINT8", "PNG"):
        case = f"sample/{form.lower()}"
        _sample_case(suite, case, vae, count=2, seed=11, output_format=form)
    _sample_case(suite, "sample/many", vae, count=130, seed=3, images=False)
    suite.case(
        "sample/without-latents",
        GENERATIVE + "Sample",
        {"model": suite.ref(vae), "count": "1", "seed": "11"},
        ok(
            suite.served_by(vae),
            images=suite.images(
                "sample-without-latents-images",
                suite.models[vae].run("sample", suite.models[vae].sample_latents(11, 0, 1))[0],
            ),
            latents=None,
            seed="11",
        ),
    )
    suite.case(
        "sample/without-seed",
        GENERATIVE + "Sample",
        {"model": suite.ref(vae), "count": "2", "include_latents": True},
        ok(
            suite.served_by(vae),
            images={"tensor": {"dtype": "FLOAT32", "shape": [2, 1, 28, 28]}},
            latents={"dtype": "FLOAT32", "shape": [2, suite.models[vae].dim]},
            seed="any",
        ),
    )


def _expected(suite: Suite, case: str, model: str, request: Json, *, images: bool = True) -> Json:
    """Return the expected outputs of a request; `images` False checks only their shape."""
    exported = suite.models[model]
    count = int(request["count"])
    latents = exported.sample_latents(
        int(request["seed"]),
        int(request.get("offset", "0")),
        count,
        # The request has float32.
        float(np.float32(request.get("temperature", 1.0))),
    )
    tolerance = SAMPLE
    if exported.manifest["latent"]["prior"] == "gaussian_mixture":
        tolerance = MIXTURE_SAMPLE
    stem = case.replace("/", "-")
    outputs: Json = {
        "latents": suite.files.expected(f"{stem}-latents", latents, tolerance),
        "seed": request["seed"],
    }
    if images:
        decoded = exported.run("sample", latents)[0]
        form = request.get("output_format", "FLOAT32")
        outputs["images"] = suite.images(f"{stem}-images", decoded, form)
    else:
        outputs["images"] = {"tensor": {"dtype": "FLOAT32", "shape": [count, 1, 28, 28]}}
    return outputs


def _request(suite: Suite, model: str, **fields: Any) -> Json:
    """Return a request; 64-bit integers become text."""
    request: Json = {"model": suite.ref(model), "include_latents": True}
    for key, value in fields.items():
        request[key] = str(value) if key in ("count", "seed", "offset") else value
    return request


def _sample_case(
    suite: Suite, case: str, model: str, *, images: bool = True, **fields: Any
) -> None:
    request = _request(suite, model, **fields)
    outputs = _expected(suite, case, model, request, images=images)
    suite.case(case, GENERATIVE + "Sample", request, ok(suite.served_by(model), **outputs))


def _stream_case(
    suite: Suite,
    case: str,
    model: str,
    chunks: list[tuple[int, int]] | None,
    *,
    images: bool = True,
    stream: Json | None = None,
    **fields: Any,
) -> None:
    """Add a stream; `chunks` holds the offset and rows of each message, None allows any."""
    request = _request(suite, model, **fields)
    outputs = _expected(suite, case, model, request, images=images)
    if chunks is not None:
        outputs["chunks"] = [{"offset": str(offset), "rows": rows} for offset, rows in chunks]
    extra: Json = {} if stream is None else {"stream": stream}
    expect = ok(suite.served_by(model), **outputs)
    suite.case(case, GENERATIVE + "SampleStream", request, expect, **extra)


def _stream(suite: Suite) -> None:
    vae, gan, mixture = "mnist-vae", "mnist-gan", "mnist-ae"
    _stream_case(
        suite, "stream/whole", vae, [(0, 3), (3, 3), (6, 1)], count=7, seed=11, chunk_rows=3
    )
    _stream_case(suite, "stream/one-chunk", gan, [(0, 2)], count=2, seed=11, chunk_rows=50)
    _stream_case(suite, "stream/server-chooses", vae, None, count=150, seed=4, images=False)
    _stream_case(
        suite,
        "stream/offset",
        vae,
        [(2**53 + 1, 2), (2**53 + 3, 2)],
        count=4,
        seed=2**64 - 1,
        offset=2**53 + 1,
        chunk_rows=2,
    )
    _stream_case(
        suite,
        "stream/temperature-0",
        mixture,
        [(0, 2), (2, 1)],
        count=3,
        seed=11,
        chunk_rows=2,
        temperature=0.0,
    )
    _stream_case(
        suite,
        "stream/png",
        vae,
        [(0, 2), (2, 2)],
        count=4,
        seed=12,
        chunk_rows=2,
        output_format="PNG",
    )
    chunks = [(0, 2), (2, 2), (4, 2), (6, 1)]
    for after in (1, 2, 3):
        _stream_case(
            suite,
            f"stream/cancelled-after-{after}-and-resumed",
            vae,
            chunks,
            stream={"cancel_after": after, "resume": True},
            count=7,
            seed=13,
            chunk_rows=2,
        )
    # Long enough that the server is still sampling when the client cancels.
    request = _request(suite, gan, count=8, seed=14, chunk_rows=4)
    outputs = _expected(suite, "stream/long-one-cancelled", gan, request)
    outputs["chunks"] = [{"offset": "0", "rows": 4}, {"offset": "4", "rows": 4}]
    suite.case(
        "stream/long-one-cancelled",
        GENERATIVE + "SampleStream",
        {**request, "count": "50000"},
        ok(suite.served_by(gan), **outputs),
        stream={"cancel_after": 2, "resume": False},
    )
