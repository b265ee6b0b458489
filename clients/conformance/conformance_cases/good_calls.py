"""Cases of successful Encode, Decode, Reconstruct and Denoise calls."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from conformance_cases.case_files import Json, Tolerance
from conformance_cases.exported_models import ExportedModel, squared_error
from conformance_cases.suite import (
    GENERATIVE,
    GRAPH,
    LOSSY,
    POSTERIOR,
    SQUARED_ERROR,
    Suite,
    ok,
)

SEEDS = (0, 7, 2**64 - 1)
# Coprime to the batch size, so that equal positions of two batches have different rows.
BLOCK_ROWS, BLOCKS = 7, 143


def add(suite: Suite) -> None:
    """Add the groups encode, decode, reconstruct, denoise, forms and large."""
    _encode(suite)
    _decode(suite)
    _reconstruct(suite)
    _denoise(suite)
    _forms_in(suite)
    _forms_out(suite)
    _large(suite)


def _tensor_of_digits(suite: Suite, first: int, rows: int) -> Json:
    return {"tensor": suite.files.tensor(f"digits-{first}-{rows}", suite.uint8(first, rows))}


def _encode(suite: Suite) -> None:
    for name, model in suite.models.items():
        if "encode" not in model.manifest["operations"]:
            continue
        mean, *rest = model.run("encode", suite.floats(0, 2))
        outputs: Json = {"latents": suite.files.expected(f"encode-{name}-latents", mean, GRAPH)}
        outputs["log_variance"] = (
            suite.files.expected(f"encode-{name}-log-variance", rest[0], GRAPH) if rest else None
        )
        suite.case(
            f"encode/{name}",
            GENERATIVE + "Encode",
            {"model": suite.ref(name), "images": _tensor_of_digits(suite, 0, 2)},
            ok(suite.served_by(name), **outputs, seed=None),
        )
    model = suite.models["mnist-vae"]
    mean, log_variance = model.run("encode", suite.floats(3, 3))
    for seed in SEEDS:
        latents = model.posterior(mean, log_variance, seed)
        suite.case(
            f"encode/posterior-seed-{seed}",
            GENERATIVE + "Encode",
            {
                "model": suite.ref("mnist-vae"),
                "images": _tensor_of_digits(suite, 3, 3),
                "seed": str(seed),
            },
            ok(
                suite.served_by("mnist-vae"),
                latents=suite.files.expected(
                    f"encode-posterior-{seed}-latents", latents, POSTERIOR
                ),
                log_variance=suite.files.expected(
                    "encode-posterior-log-variance", log_variance, GRAPH
                ),
                seed=str(seed),
            ),
        )
    _default_and_version(suite, model)


def _default_and_version(suite: Suite, model: ExportedModel) -> None:
    """Add the same call without a model, and with a model version."""
    mean, log_variance = model.run("encode", suite.floats(3, 3))
    for name, ref in (("default-model", None), ("version", suite.ref("mnist-vae", model.version))):
        request: Json = {"images": _tensor_of_digits(suite, 3, 3)}
        if ref is not None:
            request["model"] = ref
        suite.case(
            f"encode/{name}",
            GENERATIVE + "Encode",
            request,
            ok(
                suite.served_by("mnist-vae"),
                latents=suite.files.expected("encode-default-latents", mean, GRAPH),
                log_variance=suite.files.expected(
                    "encode-posterior-log-variance", log_variance, GRAPH
                ),
                seed=None,
            ),
        )


def _latents(model: ExportedModel, rows: int) -> NDArray[Any]:
    """Return standard-normal latents, as the decoder was trained on, [rows, dim]."""
    generator = np.random.Generator(np.random.PCG64(rows))
    return generator.standard_normal((rows, model.dim), np.float32)


def _decode(suite: Suite) -> None:
    for name, model in suite.models.items():
        latents = _latents(model, 2)
        suite.case(
            f"decode/{name}",
            GENERATIVE + "Decode",
            {
                "model": suite.ref(name),
                "latents": suite.files.tensor(f"decode-{name}-latents", latents),
            },
            ok(
                suite.served_by(name),
                images=suite.images(f"decode-{name}-images", model.run("decode", latents)[0]),
            ),
        )
    model = suite.models["mnist-vae"]
    half = _latents(model, 3).astype(np.float16)
    suite.case(
        "decode/float16-latents",
        GENERATIVE + "Decode",
        {
            "model": suite.ref("mnist-vae"),
            "latents": suite.files.tensor("decode-half-latents", half),
        },
        ok(
            suite.served_by("mnist-vae"),
            images=suite.images(
                "decode-half-images", model.run("decode", half.astype(np.float32))[0]
            ),
        ),
    )


def _reconstruct(suite: Suite) -> None:
    for name, model in suite.models.items():
        if "reconstruct" in model.manifest["operations"]:
            _reconstruct_case(
                suite,
                f"reconstruct/{name}",
                name,
                _tensor_of_digits(suite, 0, 2),
                suite.floats(0, 2),
            )


def _reconstruct_case(
    suite: Suite,
    case: str,
    name: str,
    images: Json,
    as_floats: NDArray[Any],
    output_format: str = "",
    tolerance: Tolerance | None = None,
) -> None:
    reconstruction = suite.models[name].run("reconstruct", as_floats)[0]
    error = squared_error(as_floats, reconstruction)
    stem = case.replace("/", "-")
    loose = Tolerance(0.5, 2e-2) if tolerance is LOSSY else SQUARED_ERROR
    request: Json = {"model": suite.ref(name), "images": images}
    if output_format:
        request["output_format"] = output_format
    suite.case(
        case,
        GENERATIVE + "Reconstruct",
        request,
        ok(
            suite.served_by(name),
            images=suite.images(
                f"{stem}-images", reconstruction, output_format or "FLOAT32", tolerance
            ),
            squared_error=suite.files.expected(f"{stem}-error", error, loose),
        ),
    )


def _denoise(suite: Suite) -> None:
    model = suite.models["mnist-dae"]
    noise = np.random.Generator(np.random.PCG64(5)).standard_normal((3, 1, 28, 28), np.float32)
    noisy = suite.floats(0, 3) + np.float32(0.5) * noise
    for name, images in (("beyond-the-unit-interval", noisy), ("clean", suite.floats(0, 3))):
        suite.case(
            f"denoise/{name}",
            GENERATIVE + "Denoise",
            {
                "model": suite.ref("mnist-dae"),
                "images": {"tensor": suite.files.tensor(f"denoise-{name}", images)},
            },
            ok(
                suite.served_by("mnist-dae"),
                images=suite.images(f"denoise-{name}-images", model.run("denoise", images)[0]),
            ),
        )
    suite.case(
        "denoise/uint8-to-png",
        GENERATIVE + "Denoise",
        {
            "model": suite.ref("mnist-dae"),
            "images": _tensor_of_digits(suite, 0, 2),
            "output_format": "PNG",
        },
        ok(
            suite.served_by("mnist-dae"),
            images=suite.images(
                "denoise-png-images", model.run("denoise", suite.floats(0, 2))[0], "PNG"
            ),
        ),
    )


def _forms_in(suite: Suite) -> None:
    """Add the forms of images in requests."""
    rows = suite.floats(5, 2)
    half = rows.astype(np.float16)
    tensors: dict[str, NDArray[Any]] = {"float32": rows, "float16": half}
    for name, array in tensors.items():
        images = {"tensor": suite.files.tensor(f"forms-{name}", array)}
        _reconstruct_case(suite, f"forms/{name}-in", "mnist-ae", images, array.astype(np.float32))
    images = _tensor_of_digits(suite, 5, 2)
    _reconstruct_case(suite, "forms/uint8-in", "mnist-ae", images, rows)
    digits = suite.digits[5:7]
    files = [suite.files.image_file(f"digit-{5 + k}", digit) for k, digit in enumerate(digits)]
    _reconstruct_case(suite, "forms/png-in", "mnist-ae", {"encoded": files}, rows)
    jpegs = [
        suite.files.image_file(f"digit-{5 + k}", digit, "JPEG", quality=95)
        for k, digit in enumerate(digits)
    ]
    decoded = np.stack([_read(suite.files.contents[path]) for path in jpegs])
    as_floats = decoded[:, np.newaxis].astype(np.float32) / np.float32(255)
    _reconstruct_case(suite, "forms/jpeg-in", "mnist-ae", {"encoded": jpegs}, as_floats, "", LOSSY)
    both = {"encoded": [files[0], jpegs[1]]}
    mixed = np.stack([rows[0], as_floats[1]])
    _reconstruct_case(suite, "forms/png-and-jpeg-in", "mnist-ae", both, mixed, "", LOSSY)
    colour = np.stack([digits[0], digits[1], 255 - digits[0]], axis=-1)
    alpha = np.full((28, 28, 1), 128, np.uint8)
    path = suite.files.image_file("colour", np.concatenate([colour, alpha], axis=-1))
    # ITU-R BT.601 luminance, to the nearest level; alpha is dropped.
    luminance = np.rint(colour @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    grey = (luminance / np.float32(255))[np.newaxis, np.newaxis]
    _reconstruct_case(
        suite, "forms/colour-png-in", "mnist-ae", {"encoded": [path]}, grey, "", LOSSY
    )


def _forms_out(suite: Suite) -> None:
    for form in ("FLOAT32", "FLOAT16", "UINT8", "PNG"):
        _reconstruct_case(
            suite,
            f"forms/{form.lower()}-out",
            "mnist-vae",
            _tensor_of_digits(suite, 5, 2),
            suite.floats(5, 2),
            form,
        )


def _large(suite: Suite) -> None:
    """Add requests of several batches, whose rows must be returned in order."""
    rows = suite.uint8(10, BLOCK_ROWS)
    model = suite.models["mnist-vae"]
    as_floats = suite.floats(10, BLOCK_ROWS)
    reconstruction = model.run("reconstruct", as_floats)[0]
    suite.case(
        "large/reconstruct",
        GENERATIVE + "Reconstruct",
        {
            "model": suite.ref("mnist-vae"),
            "images": {"tensor": suite.files.tensor("large-digits", rows, repeat=BLOCKS)},
            "output_format": "UINT8",
        },
        ok(
            suite.served_by("mnist-vae"),
            images=suite.images("large-images", reconstruction, "UINT8", repeat=BLOCKS),
            squared_error=suite.files.expected(
                "large-error",
                squared_error(as_floats, reconstruction),
                SQUARED_ERROR,
                repeat=BLOCKS,
            ),
        ),
    )
    latents = _latents(model, BLOCK_ROWS)
    suite.case(
        "large/decode",
        GENERATIVE + "Decode",
        {
            "model": suite.ref("mnist-vae"),
            "latents": suite.files.tensor("large-latents", latents, repeat=BLOCKS),
        },
        ok(
            suite.served_by("mnist-vae"),
            images=suite.images("large-decoded", model.run("decode", latents)[0], repeat=BLOCKS),
        ),
    )
    suite.case(
        "large/encode-65-png-files",
        GENERATIVE + "Encode",
        {
            "model": suite.ref("mnist-vae"),
            "images": {"encoded": [f"data/digit-{5 + k % 2}.png" for k in range(65)]},
        },
        ok(
            suite.served_by("mnist-vae"),
            latents=suite.files.expected(
                "large-png-latents", model.run("encode", _alternating(suite, 65))[0], GRAPH
            ),
            log_variance=suite.files.expected(
                "large-png-log-variance", model.run("encode", _alternating(suite, 65))[1], GRAPH
            ),
            seed=None,
        ),
    )


def _alternating(suite: Suite, rows: int) -> NDArray[Any]:
    two = suite.floats(5, 2)
    return np.stack([two[k % 2] for k in range(rows)])


def _read(data: bytes) -> NDArray[Any]:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)
