"""Commands: each takes the parsed options, makes its calls and returns a result."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from latentserve_client import Client, Images, LatentSpec, Model
from latentserve_client._base import DEFAULT_TIMEOUT_S
from latentserve_client._command_line import CommandResult, UsageError, table
from latentserve_client._results import SampleResult
from latentserve_client._security import credentials, metadata
from latentserve_client.cli._inputs import Inputs, read_inputs, read_latents
from latentserve_client.cli._output import check_out, headline, served_data, write
from latentserve_client.grid import Row, Section, latent_strips
from latentserve_client.noise import add_noise, psnr_db


def models(args: argparse.Namespace) -> CommandResult:
    """List all models, or describe one."""
    with _client(args) as client:
        if args.model:
            return _describe(client.model())
        listed = client.models()
    rows = [
        (
            model.name + (" *" if model.name == listed.default else ""),
            str(model.version),
            model.state,
            model.kind,
            _size(model),
            str(model.latent.dim or "-"),
            ", ".join(model.operations) or model.reason,
        )
        for model in listed
    ]
    headers = ("model", "version", "state", "kind", "image", "latent", "operations")
    text = table(headers, rows) if rows else "The server has no models."
    if listed.default:
        text += "\n\n* default model"
    data = {
        "default_model": listed.default,
        "models": [dataclasses.asdict(model) for model in listed],
    }
    return CommandResult(text, data)


def encode(args: argparse.Namespace) -> CommandResult:
    """Encode images to latents."""
    check_out(args.out)
    inputs = read_inputs(args)
    with _client(args) as client:
        inputs = _fitted(inputs, args, client)
        start = time.perf_counter()
        result = client.encode(inputs.to_send, seed=args.seed)
        elapsed_s = time.perf_counter() - start
    latents = result.latents
    rows = [
        (name, f"{z.mean():.3f}", f"{z.std():.3f}", " ".join(f"{value:6.2f}" for value in z[:8]))
        for name, z in zip(inputs.names, latents, strict=True)
    ]
    text = _headline(result, f"{len(inputs)} images to latents of {latents.shape[1]}", elapsed_s)
    text += "\n\n" + table(("image", "mean", "sd", "first values"), rows)
    text += write(
        args.out,
        lambda: Section(
            "encode",
            _ref(result),
            # In colour, which is correct for all files.
            (Row("image", inputs.pixels(3)), Row("latents", latent_strips(latents), upscale=False)),
        ),
        {"latents": latents, "log_variance": result.log_variance, "labels": inputs.labels},
    )
    data = {
        **served_data(result.served_by, result.timings, elapsed_s),
        "seed": result.seed,
        "latents": latents.tolist(),
        "log_variance": None if result.log_variance is None else result.log_variance.tolist(),
    }
    return CommandResult(text, data)


def decode(args: argparse.Namespace) -> CommandResult:
    """Decode latents to images."""
    check_out(args.out)
    latents = read_latents(args.latents)
    with _client(args) as client:
        start = time.perf_counter()
        result = client.decode(latents)
        elapsed_s = time.perf_counter() - start
    text = _headline(result, f"{len(result.images)} latents to images", elapsed_s)
    rows = (
        Row("latents", latent_strips(np.atleast_2d(latents)), upscale=False),
        Row("image", result.images),
    )
    text += write(
        args.out,
        lambda: Section("decode", _ref(result), rows),
        {"images": result.images, "latents": latents},
    )
    data = served_data(result.served_by, result.timings, elapsed_s)
    return CommandResult(text, {**data, "count": len(result.images)})


def reconstruct(args: argparse.Namespace) -> CommandResult:
    """Encode and decode images, and print the error of each image."""
    check_out(args.out)
    inputs = read_inputs(args)
    with _client(args) as client:
        inputs = _fitted(inputs, args, client)
        start = time.perf_counter()
        result = client.reconstruct(inputs.to_send)
        elapsed_s = time.perf_counter() - start
    rows = [(name, f"{mse:.5f}") for name, mse in zip(inputs.names, result.mse, strict=True)]
    rows.append(("mean", f"{result.mse.mean():.5f}"))
    text = _headline(result, f"{len(inputs)} images", elapsed_s)
    text += "\n\n" + table(("image", "mse"), rows)
    pixels = inputs.pixels(result.images.shape[1])
    text += write(
        args.out,
        lambda: Section(
            "reconstruct",
            f"{_ref(result)} · mean squared error {result.mse.mean():.4f}",
            (Row("image", pixels), Row("reconstructed", result.images)),
        ),
        {
            "images": result.images,
            "inputs": pixels,
            "squared_error": result.squared_error,
            "labels": inputs.labels,
        },
    )
    data = served_data(result.served_by, result.timings, elapsed_s)
    return CommandResult(text, {**data, "squared_error": result.squared_error.tolist()})


def denoise(args: argparse.Namespace) -> CommandResult:
    """Remove noise from images, after adding noise if --add-noise is given."""
    check_out(args.out)
    if args.seed is not None and args.add_noise is None:
        raise UsageError("--seed requires --add-noise")
    inputs = read_inputs(args)
    with _client(args) as client:
        inputs = _fitted(inputs, args, client)
        to_send: Images = inputs.to_send
        clean = None
        if args.add_noise is not None:
            clean = inputs.pixels(client.model().image.channels)
            to_send = add_noise(clean, args.add_noise, args.seed or 0)
        start = time.perf_counter()
        result = client.denoise(to_send)
        elapsed_s = time.perf_counter() - start
    text = _headline(result, f"{len(inputs)} images", elapsed_s)
    data = {**served_data(result.served_by, result.timings, elapsed_s), "count": len(inputs)}
    note = _ref(result)
    noisy = inputs.pixels(result.images.shape[1]) if clean is None else np.asarray(to_send)
    if clean is not None:
        before_db, after_db = psnr_db(noisy, clean), psnr_db(result.images, clean)
        text += f"\nPSNR {before_db:.1f} -> {after_db:.1f} dB"
        note += f" · noise {args.add_noise:g} · PSNR {before_db:.1f} -> {after_db:.1f} dB"
        data |= {"psnr_noisy_db": before_db, "psnr_denoised_db": after_db}
    text += write(
        args.out,
        lambda: Section("denoise", note, (Row("noisy", noisy), Row("denoised", result.images))),
        {
            "images": result.images,
            "noisy": noisy,
            "clean": clean,
            "labels": inputs.labels,
        },
    )
    return CommandResult(text, data)


def sample(args: argparse.Namespace) -> CommandResult:
    """Sample new images, by a stream if they exceed the limit of one request."""
    check_out(args.out)
    options: dict[str, Any] = {
        "seed": args.seed,
        "offset": args.offset,
        "temperature": args.temperature,
        "include_latents": True,
    }
    with _client(args) as client:
        limits = client.model().limits
        start = time.perf_counter()
        chunks: list[SampleResult] = (
            list(client.sample_stream(args.count, **options))
            if args.count > limits.max_request_rows > 0
            else [client.sample(args.count, **options)]
        )
        elapsed_s = time.perf_counter() - start
    images = np.concatenate([chunk.images for chunk in chunks])
    latents = [chunk.latents for chunk in chunks if chunk.latents is not None]
    first = chunks[0]
    text = _headline(first, f"{len(images)} images from seed {first.seed}", elapsed_s)
    text += write(
        args.out,
        lambda: Section("sample", f"{_ref(first)} · seed {first.seed}", (Row("", images),)),
        {
            "images": images,
            "latents": np.concatenate(latents) if latents else None,
            "seed": np.array(first.seed, np.uint64),
        },
    )
    data = served_data(first.served_by, first.timings, elapsed_s)
    return CommandResult(
        text, {**data, "count": len(images), "seed": first.seed, "offset": args.offset}
    )


def health(args: argparse.Namespace) -> CommandResult:
    """Print whether the server, or one model, is serving."""
    service = (args.model or "").partition(":")[0]
    with _client(args) as client:
        status = client.health(service)
    return CommandResult(
        status, {"service": service, "status": status}, exit_code=0 if status == "SERVING" else 1
    )


def reload(args: argparse.Namespace) -> CommandResult:
    """Reload the model folder of the server; fails if a version is refused."""
    with _client(args) as client:
        outcomes = client.reload_models(args.names, timeout_s=args.timeout_s)
    rows = [(o.name, str(o.version), o.action, o.reason) for o in outcomes]
    text = table(("model", "version", "action", "reason"), rows) if rows else "No models."
    refused = any(outcome.action == "refused" for outcome in outcomes)
    data = {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
    return CommandResult(text, data, exit_code=1 if refused else 0)


def load(args: argparse.Namespace) -> CommandResult:
    """Run a load test; imported lazily, because no other command needs it."""
    from latentserve_client.load import command

    return command.load(args)


COMMANDS: dict[str, Callable[[argparse.Namespace], CommandResult]] = {
    "models": models,
    "encode": encode,
    "decode": decode,
    "reconstruct": reconstruct,
    "denoise": denoise,
    "sample": sample,
    "health": health,
    "reload": reload,
    "load": load,
}


def _client(args: argparse.Namespace) -> Client:
    return Client(
        args.server,
        timeout_s=args.timeout_s or DEFAULT_TIMEOUT_S,
        model=args.model,
        credentials=credentials(args),
        metadata=metadata(args),
        allow_plaintext_token=args.allow_plaintext_token,
    )


def _fitted(inputs: Inputs, args: argparse.Namespace, client: Client) -> Inputs:
    """Return the inputs, resized for the model if --resize is given."""
    if not args.resize:
        return inputs
    spec = client.model().image
    return inputs.resized(spec.height, spec.width)


def _headline(result: Any, summary: str, elapsed_s: float) -> str:
    return headline(result.served_by, result.timings, summary, elapsed_s)


def _ref(result: Any) -> str:
    return f"{result.served_by.name} v{result.served_by.version}"


def _size(model: Model) -> str:
    image = model.image
    return f"{image.channels}x{image.height}x{image.width}" if image.channels else "-"


def _latent(spec: LatentSpec) -> str:
    parts = f" of {spec.mixture_components}" if spec.mixture_components else ""
    return f"{spec.dim} values, prior {spec.prior}{parts}"


def _describe(model: Model) -> CommandResult:
    facts = [
        ("model", f"{model.name} v{model.version}, {model.state}"),
        ("kind", model.kind),
        ("description", model.description or model.reason),
        ("image", f"{_size(model)} (channels x height x width)"),
        ("latent", _latent(model.latent)),
        ("operations", ", ".join(model.operations)),
        ("rows", f"{model.limits.max_request_rows} per request"),
        ("provider", model.provider),
        ("digest", model.digest),
    ]
    text = "\n".join(f"{name:12} {value}" for name, value in facts)
    if model.metrics:
        rows = [
            (
                metric.name,
                f"{metric.value:.5g}",
                metric.unit,
                "-" if metric.baseline is None else f"{metric.baseline:.5g}",
                metric.baseline_name,
                str(metric.samples),
            )
            for metric in model.metrics
        ]
        headers = ("metric", "value", "unit", "baseline", "baseline name", "images")
        text += "\n\n" + table(headers, rows)
    return CommandResult(text, dataclasses.asdict(model))
