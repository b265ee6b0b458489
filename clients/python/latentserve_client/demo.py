"""Demonstration program: `python -m latentserve_client.demo`.

Starts a server on the exported models, sends handwritten digits through all five calls and then
through every model, prints the results, draws them as one picture, and stops the server.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from latentserve_client import Client, LatentserveError, Model, ModelList, digits
from latentserve_client._command_line import table
from latentserve_client._server_process import (
    ServerFailed,
    ServerProcess,
    free_address,
    server_command,
)
from latentserve_client.grid import Row, Section, draw, latent_strips
from latentserve_client.noise import add_noise, psnr_db

NOISE_SIGMA = 0.5
NOISE_SEED = 0
SAMPLE_SEED = 7
SAMPLES = 20

T = TypeVar("T")


Line = tuple[str, str, str, str, str]
"""Call, model, images, milliseconds, result."""


@dataclass(frozen=True)
class Step:
    """A call, or one call to several models: its lines of the table and its section."""

    lines: tuple[Line, ...]
    section: Section


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration and return the exit code."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except (LatentserveError, ServerFailed, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"{args.out}: there is no folder {args.out.parent}")
    with contextlib.ExitStack() as stack:
        server: ServerProcess | None = None
        address = args.server
        if address is None:
            if not args.exports.is_dir():
                raise FileNotFoundError(f"--exports {args.exports}: there is no such folder")
            address = free_address()
            print(
                f"Starting a server on {address} with the models in {args.exports} ...", flush=True
            )
            command = server_command(args.exports, address, args.device)
            server = stack.enter_context(ServerProcess(command))
        client = stack.enter_context(Client(address, timeout_s=30))
        if server is not None:
            server.wait_until_serving(client)
        models = client.models()
        steps = run_calls(client, models)
        if not steps:
            raise ServerFailed(
                "the server has no model for 28x28 grey images; see `latentserve models`"
            )
        provider = next(model.provider for model in models if model.state == "ready")
        print(f"Serving on {provider}.\n")
        lines = [line for step in steps for line in step.lines]
        print(table(("call", "model", "images", "ms", "result"), lines))
        draw(
            [step.section for step in steps],
            title="latentserve",
            note=f"Handwritten digits through {len(lines)} gRPC calls, run on {provider}",
        ).save(args.out)
        print(f"\nPicture: {args.out}")
        if server is not None:
            exit_code = server.stop()
            if exit_code != 0:
                raise ServerFailed(f"the server exited with code {exit_code}:\n{server.tail()}")
            print("The server stopped cleanly on SIGTERM (exit code 0).")
    print(_next(models))
    return 0


def run_calls(client: Client, models: ModelList) -> list[Step]:
    """Make every call that a ready model supports; return the results."""
    shown = digits.bundled()[:10]
    images = shown.images[:, np.newaxis]  # uint8 [10, 1, 28, 28]
    clean = images.astype(np.float32) / np.float32(255)
    steps: list[Step] = []
    if model := choose_model(models, ("encode", "decode"), "mnist-vae"):
        steps += _encode_and_decode(client, model, images, clean)
    if model := choose_model(models, ("reconstruct",), "mnist-ae"):
        steps.append(_reconstruct(client, model, images))
    if model := choose_model(models, ("denoise",), "mnist-dae"):
        steps.append(_denoise(client, model, clean))
    if model := choose_model(models, ("sample",), "mnist-ae", any_size=True):
        steps.append(_sample(client, model))
    return steps + _every_model(client, models, images, clean)


def newest_ready(models: ModelList) -> list[Model]:
    """Return the highest ready version of every model, by name."""
    newest: dict[str, Model] = {}
    for model in models:
        known = newest.get(model.name)
        if model.state == "ready" and (known is None or model.version > known.version):
            newest[model.name] = model
    return [newest[name] for name in sorted(newest)]


def choose_model(
    models: ModelList, operations: tuple[str, ...], favourite: str, *, any_size: bool = False
) -> Model | None:
    """Return a ready model that has all operations, the favourite if possible, or None."""
    able = [
        model
        for model in models
        if model.state == "ready"
        and set(operations) <= set(model.operations)
        and (any_size or _takes_digits(model))
    ]
    able.sort(key=lambda model: (model.name != favourite, model.name, -model.version))
    return able[0] if able else None


def _takes_digits(model: Model) -> bool:
    return (model.image.channels, model.image.height, model.image.width) == (1, 28, 28)


def _encode_and_decode(
    client: Client, model: Model, images: NDArray[np.uint8], clean: NDArray[np.float32]
) -> list[Step]:
    encoded, encode_ms = _timed(lambda: client.encode(images, model=model.ref))
    z = encoded.latents
    strips = Row("latents", latent_strips(z), upscale=False)
    result = f"latents {len(z)}x{z.shape[1]}, mean {z.mean():.2f}, sd {z.std():.2f}"
    decoded, decode_ms = _timed(lambda: client.decode(z, model=model.ref))
    mse = float(np.mean(np.square(decoded.images - clean)))
    return [
        _step(
            "Encode",
            model,
            len(z),
            encode_ms,
            result,
            f"each digit becomes {z.shape[1]} latents (blue: negative, red: positive)",
            (Row("digits", images), strips),
        ),
        _step(
            "Decode",
            model,
            len(z),
            decode_ms,
            f"MSE {mse:.4f} to the digits",
            f"images from these {z.shape[1]} latents alone",
            (strips, Row("decoded", decoded.images)),
        ),
    ]


def _reconstruct(client: Client, model: Model, images: NDArray[np.uint8]) -> Step:
    result, ms = _timed(lambda: client.reconstruct(images, model=model.ref))
    mse = f"MSE {result.mse.mean():.4f}"
    return _step(
        "Reconstruct",
        model,
        len(images),
        ms,
        mse,
        f"encoded and decoded in one call, {mse}",
        (Row("digits", images), Row("reconstructed", result.images)),
    )


def _denoise(client: Client, model: Model, clean: NDArray[np.float32]) -> Step:
    noisy = add_noise(clean, NOISE_SIGMA, NOISE_SEED)
    result, ms = _timed(lambda: client.denoise(noisy, model=model.ref))
    psnr = f"PSNR {psnr_db(noisy, clean):.1f} -> {psnr_db(result.images, clean):.1f} dB"
    return _step(
        "Denoise",
        model,
        len(clean),
        ms,
        psnr,
        f"Gaussian noise (sigma {NOISE_SIGMA:g}) removed, {psnr}",
        (Row("noisy", noisy), Row("denoised", result.images)),
    )


def _sample(client: Client, model: Model) -> Step:
    count = min(SAMPLES, model.limits.max_request_rows or SAMPLES)
    result, ms = _timed(lambda: client.sample(count, model=model.ref, seed=SAMPLE_SEED))
    return _step(
        "Sample",
        model,
        count,
        ms,
        f"seed {result.seed}",
        f"new digits from the prior; seed {result.seed} gives the same ones every time",
        (Row("samples", result.images),),
    )


def _step(
    call: str, model: Model, count: int, ms: float, result: str, note: str, rows: tuple[Row, ...]
) -> Step:
    heading = f"{_name(model)} · {note}"
    return Step((_line(call, model, count, ms, result),), Section(call, heading, rows))


def _every_model(
    client: Client, models: ModelList, images: NDArray[np.uint8], clean: NDArray[np.float32]
) -> list[Step]:
    """Reconstruct the digits with every model that can, and sample from every model that can."""
    able = [model for model in newest_ready(models) if _takes_digits(model)]
    steps: list[Step] = []
    if encoding := [model for model in able if "reconstruct" in model.operations]:
        rows, lines = [Row("digits", images)], []
        for model in encoding:
            result, ms = _timed(partial(client.reconstruct, images, model=model.ref))
            mse = float(np.mean(np.square(result.images - clean)))
            rows.append(Row(model.name, result.images))
            lines.append(_line("Reconstruct", model, len(images), ms, f"MSE {mse:.4f}"))
        note = "the same digits, reconstructed by each model"
        steps.append(Step(tuple(lines), Section("Reconstruct, every model", note, tuple(rows))))
    if sampling := [model for model in able if "sample" in model.operations]:
        rows, lines = [], []
        for model in sampling:
            count = min(len(images), model.limits.max_request_rows or len(images))
            drawn, ms = _timed(partial(client.sample, count, model=model.ref, seed=SAMPLE_SEED))
            rows.append(Row(model.name, drawn.images))
            lines.append(_line("Sample", model, count, ms, f"seed {drawn.seed}"))
        note = f"samples of each model with seed {SAMPLE_SEED}, not selected by hand"
        steps.append(Step(tuple(lines), Section("Sample, every model", note, tuple(rows))))
    return steps


def _name(model: Model) -> str:
    return f"{model.name} v{model.version}"


def _line(call: str, model: Model, count: int, ms: float, result: str) -> Line:
    return call, _name(model), str(count), f"{ms:.1f}", result


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a call and its duration at the client in milliseconds."""
    start_s = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start_s) * 1e3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m latentserve_client.demo",
        description="Start a server, send digits through every call and draw the results.",
    )
    parser.add_argument(
        "--exports", type=Path, default=Path("exports"), help="model folder (default: exports)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="picture to write (default: demo.png)"
    )
    parser.add_argument("--device", help="cpu, cuda or auto, for the server")
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="use this running server instead of starting one"
    )
    return parser


def _next(models: ModelList) -> str:
    """Return the commands to try next."""
    command = "latentserve"
    if shutil.which(command) is None:
        # In a virtual environment that is not activated.
        python = Path(sys.executable)
        here = Path.cwd()
        python = python.relative_to(here) if python.is_relative_to(here) else python
        command = f"{python} -m latentserve_client"
    lines = [
        "",
        "Next:",
        "  make serve                              start the server and leave it running, then:",
        f"  {command} models",
    ]
    if model := choose_model(models, ("denoise",), "mnist-dae"):
        example = f"denoise --digits 10 --add-noise {NOISE_SIGMA} --model {model.name}"
        lines.append(f"  {command} {example} --out denoised.png")
    lines.append("  docs/README.md                          the documentation by reader")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
