"""Overview picture of all exported models: description, main metric, example images.

ONNX Runtime computes every image from the exported graphs, as the server does: inputs and
reconstructions for models with an encoder, noisy and denoised images for denoising models, and
samples from the prior for models that have one. No image is selected by hand.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from latentserve_training.config import parse_config
from latentserve_training.data import ImageData
from latentserve_training.errors import DataError, ExportError
from latentserve_training.evaluate.metric import NOISE_SEED
from latentserve_training.nn.gaussian_mixture import read_mixture
from latentserve_training.pixels import to_float
from latentserve_training.report.plots import COLUMNS, Row, mosaic, save
from latentserve_training.report.style import INK, LABEL_ALIGNMENT, MUTED, RULE
from latentserve_training.train.loop import build_model

WIDTH_INCH = 10.0  # 1,500 pixels, for displays with a high pixel density
CAPTION_INCH, LABEL_INCH, MARGIN_INCH = 3.0, 0.95, 0.15
CELL_INCH = (WIDTH_INCH - CAPTION_INCH - LABEL_INCH - MARGIN_INCH) / COLUMNS
LINE_INCH, NAME_INCH = 0.155, 0.2
GAP_INCH = 0.22
CAPTION_CHARACTERS = 46

# Kinds in the order of the lecture; unknown kinds come last.
KIND_ORDER = (
    "autoencoder",
    "linear",
    "sparse",
    "contractive",
    "denoising",
    "vae",
    "gan",
    "vae_gan",
)
# Main metrics of a kind; the first that the export has is shown.
HEADLINES = {
    "contractive": ("test_jacobian",),
    "denoising": ("test_psnr_db",),
    "gan": ("test_frechet_distance",),
    "vae": ("test_log_likelihood_nats", "test_elbo_nats"),
    "vae_gan": ("test_frechet_beside_vae", "test_frechet_distance"),
}
WORDS = {
    "test_elbo_nats": "ELBO",
    "test_frechet_beside_vae": "Fréchet distance",
    "test_frechet_distance": "Fréchet distance",
    "test_jacobian": "mean ‖∂z/∂x‖²",
    "test_log_likelihood_nats": "log p(x)",
    "test_mse": "squared error per pixel",
    "test_psnr_db": "PSNR",
}
SHOWN_UNITS = {"dB": " dB", "nats per image": " nats"}  # other units are part of WORDS


@dataclass(frozen=True)
class Entry:
    """One model: a caption and rows of images."""

    name: str
    description: str
    headline: str
    strips: list[Row]


def draw_gallery(exports: Path, data: ImageData, path: Path) -> list[str]:
    """Draw the highest version of each model in ``exports`` and write a PNG.

    Returns:
        The names of the models, from top to bottom.

    Raises:
        CheckpointError: If the mixture of a prior cannot be read.
        ExportError: If there is no export, or one cannot be read or run.
        DataError: If the images do not have a model's shape.
    """
    manifests = sorted(read_manifests(exports), key=lambda each: _rank(each[1]))
    images = choose_images(data)
    pieces = [show(folder, manifest, images) for folder, manifest in manifests]
    _draw(pieces, path)
    return [piece.name for piece in pieces]


def read_manifests(exports: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read the folder and the manifest of the highest version of each model.

    Raises:
        ExportError: If there is none, or one cannot be read.
    """
    found = []
    for model in sorted(exports.iterdir()) if exports.is_dir() else []:
        versions = [each for each in model.glob("*/manifest.json") if each.parent.name.isdecimal()]
        if not versions:
            continue
        path = max(versions, key=lambda each: int(each.parent.name))
        try:
            found.append((path.parent, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} cannot be read: {error}; export the run again") from error
    if not found:
        raise ExportError(
            f"{exports} holds no <name>/<version>/manifest.json; write one with "
            "latentserve-training export"
        )
    return found


def choose_images(data: ImageData) -> np.ndarray:
    """Choose the first test image of up to ten classes, or the first ten: ``[n, c, h, w]``."""
    rows = np.arange(min(COLUMNS, len(data.test)))
    if data.labels is not None:
        rows = np.unique(data.labels.test[: len(data.test)].numpy(), return_index=True)[1][:COLUMNS]
    images: np.ndarray = to_float(data.test[rows]).numpy()
    return images


def show(folder: Path, manifest: dict[str, Any], images: np.ndarray) -> Entry:
    """Run the operations of a model on images ``[n, c, h, w]`` in [0, 1].

    Raises:
        ExportError: If a graph cannot be run.
        DataError: If the images do not have its shape.
    """
    name, operations, shape = manifest["name"], manifest["operations"], manifest["image"]
    expected = (shape["channels"], shape["height"], shape["width"])
    strips: list[Row] = []
    if operations.keys() & {"reconstruct", "denoise"} and images.shape[1:] != expected:
        raise DataError(
            f"{name} takes images of {'×'.join(map(str, expected))} (channels, height, width), but "
            f"these have {'×'.join(map(str, images.shape[1:]))}; pass suitable images with --data"
        )
    if "denoise" in operations:
        noisy = _corrupt(manifest, images)
        strips += [("noisy", noisy), ("denoised", _run(folder, manifest, "denoise", noisy))]
    elif "reconstruct" in operations:
        rebuilt = _run(folder, manifest, "reconstruct", images)
        strips += [("test image", images), ("reconstruction", rebuilt)]
    if "sample" in operations:
        latents = draw_prior(folder, manifest["latent"], COLUMNS)
        strips.append(("samples", _run(folder, manifest, "sample", latents)))
    return Entry(name, manifest["description"], describe_headline(manifest), strips)


def draw_prior(folder: Path, latent: dict[str, Any], count: int) -> np.ndarray:
    """Sample float32 latents ``[count, d]`` from the prior in a manifest.

    Raises:
        CheckpointError: If the mixture cannot be read.
        ExportError: If the prior is one that this version does not know.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)
    if latent["prior"] == "standard_normal":
        latents = torch.randn(count, latent["dim"], generator=generator)
    elif latent["prior"] == "gaussian_mixture":
        latents = read_mixture(folder / latent["mixture"]["file"]).sample(count, generator)
    else:
        raise ExportError(
            f"{folder}: the prior {latent['prior']!r} is not supported by this version"
        )
    drawn: np.ndarray = latents.numpy()
    return drawn


def describe_headline(manifest: dict[str, Any]) -> str:
    """The main metric, with its baseline in a second line if there is one."""
    metrics: dict[str, dict[str, Any]] = manifest["metrics"]
    wanted = [each for each in HEADLINES.get(manifest["kind"], ()) if each in metrics]
    compared = [each for each, metric in metrics.items() if metric["baseline"]]
    chosen = next(iter([*wanted, *compared, *metrics]), None)
    if chosen is None:
        return ""
    metric = metrics[chosen]
    words = WORDS.get(chosen, chosen.removeprefix("test_").replace("_", " "))
    unit = SHOWN_UNITS.get(metric["unit"], "")
    text = f"{words}: {metric['value']:.4g}{unit}"
    if baseline := metric["baseline"]:
        text += f"\n{baseline['name']}: {baseline['value']:.4g}{unit}"
    return text


def _rank(manifest: dict[str, Any]) -> tuple[int, str]:
    kind = manifest["kind"]
    known = KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER)
    return known, manifest["name"]


def _corrupt(manifest: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Corrupt images as in the training of the model."""
    config = parse_config(manifest["training"]["config"])
    channels, height, width = images.shape[1:]
    model = build_model(config, (channels, height, width))
    clean = torch.from_numpy(images)
    no_latents = torch.empty(len(images), 0)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noisy: np.ndarray = model.golden_input("denoise", clean, no_latents, generator).numpy()
    return noisy


def _run(folder: Path, manifest: dict[str, Any], operation: str, inputs: np.ndarray) -> np.ndarray:
    graph = manifest["operations"][operation]
    try:
        session = onnxruntime.InferenceSession(
            str(folder / graph["file"]), providers=["CPUExecutionProvider"]
        )
        (outputs,) = session.run(graph["outputs"], {graph["inputs"][0]: inputs})
    except Exception as error:  # of ONNX Runtime, which have no common class that is public
        first_line = str(error).partition("\n")[0]
        raise ExportError(f"{folder}: {operation} fails ({first_line}); export it again") from error
    return np.asarray(outputs)


def _draw(pieces: Sequence[Entry], path: Path) -> None:
    captions = [
        [
            line
            for paragraph in (piece.description, "", *piece.headline.splitlines())
            for line in textwrap.wrap(paragraph, CAPTION_CHARACTERS) or [""]
        ]
        for piece in pieces
    ]
    heights = [
        max(len(piece.strips) * CELL_INCH, NAME_INCH + (len(lines) - 0.5) * LINE_INCH)
        for piece, lines in zip(pieces, captions, strict=True)
    ]
    total_inch = sum(heights) + GAP_INCH * (len(pieces) + 1)
    figure = Figure(figsize=(WIDTH_INCH, total_inch))
    top_inch = total_inch - GAP_INCH
    for index, (piece, lines, height) in enumerate(zip(pieces, captions, heights, strict=True)):
        if index:
            y = (top_inch + GAP_INCH / 2) / total_inch
            figure.add_artist(Line2D([0.01, 0.99], [y, y], color=RULE, linewidth=0.8))
        _write_caption(figure, piece, lines, top_inch, total_inch)
        _draw_strips(figure, piece.strips, top_inch, total_inch)
        top_inch -= height + GAP_INCH
    save(figure, path)


def _write_caption(
    figure: Figure, piece: Entry, lines: Sequence[str], top_inch: float, total_inch: float
) -> None:
    left = MARGIN_INCH / WIDTH_INCH
    name_y = top_inch / total_inch
    figure.text(left, name_y, piece.name, fontsize=12, color=INK, va="top")
    y_inch = top_inch - NAME_INCH - 0.02
    headline = False
    for line in lines:
        headline = headline or not line  # below the empty line
        y_inch -= LINE_INCH * (1.0 if line else 0.35)
        colour = INK if headline else MUTED
        figure.text(left, y_inch / total_inch, line, fontsize=8, color=colour, va="bottom")


def _draw_strips(figure: Figure, strips: Sequence[Row], top_inch: float, total_inch: float) -> None:
    images_left = CAPTION_INCH + LABEL_INCH
    for index, (label, _) in enumerate(strips):
        middle = (top_inch - (index + 0.5) * CELL_INCH) / total_inch
        left = (images_left - 0.1) / WIDTH_INCH
        figure.text(left, middle, label, fontsize=8, color=MUTED, ha=LABEL_ALIGNMENT, va="center")
    canvas = mosaic([images for _, images in strips])
    columns = max(len(images) for _, images in strips)
    axes = figure.add_axes(
        (
            images_left / WIDTH_INCH,
            (top_inch - len(strips) * CELL_INCH) / total_inch,
            columns * CELL_INCH / WIDTH_INCH,
            len(strips) * CELL_INCH / total_inch,
        )
    )
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
