"""Plots of a run as PNG files: loss curves and grids of images.

Each is drawn on its own Agg canvas, without pyplot: no window, no global state.
"""

import atexit
import contextlib
import functools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from latentserve_training.evaluate.metric import NOISE_SEED, Metric, Subject
from latentserve_training.evaluate.reconstruction import denoising_baseline, denoising_model
from latentserve_training.metrics.baselines import to_rows
from latentserve_training.pixels import to_float
from latentserve_training.report.style import (
    ACCENT,
    INK,
    LABEL_ALIGNMENT,
    MUTED,
    PAPER,
    RULE,
    SECONDARY,
    font,
)

COLUMNS = 10
SAMPLES = 100
DPI = 150
GAP = 0.07  # between images, as a share of their side
SPLITS = {"train": SECONDARY, "validation": ACCENT}
ZOOM_AFTER_EPOCHS = 5
_FONT_FOLDERS = contextlib.ExitStack()
atexit.register(_FONT_FOLDERS.close)

Row = tuple[str, np.ndarray]
"""A label, and float images ``[n, c, h, w]`` in [0, 1]."""


def draw_curves(history: Sequence[dict[str, Any]], best_epoch: int, title: str, path: Path) -> None:
    """Draw the training and validation curves of each loss over the epochs, one panel per loss."""
    names = _curve_names(history)
    columns = 1 if len(names) == 1 else 2 if len(names) <= 4 else 3
    rows = math.ceil(len(names) / columns)
    width, height = (4.8, 3.3) if columns < 3 else (3.6, 2.5)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns))
    for unused in panels[len(names) :]:
        unused.remove()
    for axes, name in zip(panels, names, strict=False):
        _draw_curve(axes, history, name, best_epoch)
    entries = {
        label: line
        for axes in panels[: len(names)]
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=len(entries),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=11, color=INK)
    save(figure, path)


def _curve_names(history: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the logged losses, those of training first."""
    keys = [key for row in history for key in row]
    names = [
        key.removeprefix(f"{split}_")
        for split in SPLITS
        for key in keys
        if key.startswith(f"{split}_")
    ]
    names = list(dict.fromkeys(names))
    # The loss of a plain autoencoder is its squared error: the same curve is not drawn twice.
    twice = any(name != "loss" and _same_curves(history, name, "loss") for name in names)
    return [name for name in names if name != "loss" or not twice]


def _same_curves(history: Sequence[dict[str, Any]], first: str, second: str) -> bool:
    return all(
        row.get(f"{split}_{first}") == row.get(f"{split}_{second}")
        for row in history
        for split in SPLITS
    )


def _draw_curve(axes: Axes, history: Sequence[dict[str, Any]], name: str, best_epoch: int) -> None:
    curves = {split: f"{split}_{name}" for split in SPLITS if f"{split}_{name}" in history[-1]}
    rows = [row for row in history if all(key in row for key in curves.values())]
    for split, key in curves.items():
        axes.plot(
            [row["epoch"] for row in rows],
            [row[key] for row in rows],
            color=SPLITS[split],
            label=split,
            marker="o" if len(rows) == 1 else None,
            linewidth=1.8,
        )
    if len(rows) > ZOOM_AFTER_EPOCHS:
        _zoom(axes, [row[key] for key in curves.values() for row in rows[1:]])
    axes.axvline(best_epoch, color=MUTED, linewidth=0.8, linestyle=":", label="best epoch")
    axes.set_title(_LABELS.get(name, name.replace("_", " ")), fontsize=10, color=INK)
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)


def draw_reconstructions(
    subject: Subject, metrics: dict[str, Metric], title: str, path: Path
) -> None:
    """Draw test images, their reconstructions and those of the baseline, if there is one."""
    model, test = subject.model, subject.data.test[:COLUMNS]
    with torch.inference_mode():
        reconstructions = model.reconstruct(to_float(test)).numpy()
    metric = metrics["test_mse"]
    rows = [
        ("test image", to_float(test).numpy()),
        (f"model\nMSE {metric.value:.4f}", reconstructions),
    ]
    if metric.baseline_value is not None:
        pca = subject.pca.reconstruct(to_rows(test), model.nonzero_latents_per_image).reshape(
            test.shape
        )
        rows.append((f"{metric.baseline_name}\nMSE {metric.baseline_value:.4f}", pca))
    draw_rows(
        rows, f"{title}: reconstructions from {model.nonzero_latents_per_image} latents", path
    )


def draw_denoised(subject: Subject, metrics: dict[str, Metric], title: str, path: Path) -> None:
    """Draw noisy test images, denoised by the model and by the Wiener filter (Gaussian noise only).

    One group of rows for each measured noise level, the lowest first.
    """
    model = denoising_model(subject)
    levels = {model.level: metrics["test_psnr_db"]}
    levels |= {level: metrics[f"test_psnr_db_at_{level:g}"] for level in model.measured_levels}
    rows: list[Row] = [("test image", to_float(subject.data.test[:COLUMNS]).numpy())]
    for level, metric in sorted(levels.items()):
        rows += _denoised_rows(subject, level, metric)
    draw_rows(rows, f"{title}: denoised test images", path)


def _denoised_rows(subject: Subject, level: float, metric: Metric) -> list[Row]:
    model, test = denoising_model(subject), subject.data.test[:COLUMNS]
    with torch.inference_mode():
        noisy = model.corrupt(to_float(test), torch.Generator().manual_seed(NOISE_SEED), level)
        denoised = model.reconstruct(noisy).numpy()
    gaussian = model.corruption == "gaussian"
    noise = f"noise σ {level:g}" if gaussian else f"{100 * level:g} % lost"
    rows = [(noise, noisy.numpy()), (f"model\n{metric.value:.2f} dB", denoised)]
    if gaussian:
        _, filtered = denoising_baseline(subject, noisy.flatten(1).double().numpy(), level)
        label = f"Wiener filter\n{metric.baseline_value:.2f} dB"
        rows.append((label, filtered.reshape(test.shape)))
    return rows


def draw_samples(subject: Subject, metrics: dict[str, Metric], title: str, path: Path) -> None:
    """Draw samples from the prior, not selected by hand."""
    model = subject.model
    generator = torch.Generator().manual_seed(NOISE_SEED)
    with torch.inference_mode():
        samples = model.decode(model.sample_latents(SAMPLES, generator)).numpy()
    rows = [("", samples[start : start + COLUMNS]) for start in range(0, SAMPLES, COLUMNS)]
    draw_rows(rows, f"{title}: {SAMPLES} samples from the prior", path)


def _zoom(axes: Axes, values: Sequence[float]) -> None:
    """Fit the axis to these values, because the first epoch would flatten all others."""
    margin = 0.05 * (max(values) - min(values)) or 1.0
    axes.set_ylim(min(values) - margin, max(values) + margin)


def draw_rows(rows: Sequence[Row], title: str, path: Path, headings: Sequence[str] = ()) -> None:
    """Draw rows of images with a label on the left and, optionally, a heading over each column."""
    columns = max(len(images) for _, images in rows)
    labels_inch = 1.15 if any(label for label, _ in rows) else 0.1
    cell_inch, title_inch = 0.62, 0.62 if headings else 0.42
    width = labels_inch + columns * cell_inch + 0.1
    height = title_inch + len(rows) * cell_inch + 0.1
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.26 / height, title, fontsize=10, color=INK, va="center")
    for column, heading in enumerate(headings):
        left = (labels_inch + (column + 0.5) * cell_inch) / width
        top = 1 - (title_inch - 0.08) / height
        figure.text(left, top, heading, fontsize=7.5, color=MUTED, ha="center", va="center")
    for row, (label, _) in enumerate(rows):
        middle = (height - title_inch - (row + 0.5) * cell_inch) / height
        left = (labels_inch - 0.1) / width
        figure.text(left, middle, label, fontsize=8, color=MUTED, ha=LABEL_ALIGNMENT, va="center")
    # One array of all images: hundreds of axes would take seconds.
    axes = figure.add_axes(
        (
            labels_inch / width,
            0.1 / height,
            columns * cell_inch / width,
            len(rows) * cell_inch / height,
        )
    )
    axes.imshow(mosaic([images for _, images in rows]), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    save(figure, path)


def mosaic(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images, each ``[n, c, h, w]`` with one or three channels, as one array on white.

    Returns:
        float ``[rows * s, columns * s, 3]``: squares of s pixels, the images in their middle.
    """
    height, width = rows[0].shape[2:]
    side = max(height, width)
    side += max(1, round(side * GAP))
    canvas = np.ones((len(rows) * side, max(map(len, rows)) * side, 3))
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top = row * side + (side - height) // 2
            left = column * side + (side - width) // 2
            pixels = np.clip(image.transpose(1, 2, 0), 0.0, 1.0)  # one channel fills all three
            canvas[top : top + height, left : left + width] = pixels
    return canvas


def save(figure: Figure, path: Path) -> None:
    """Write a PNG on white, in the font of `style`."""
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_fontfamily(_font_families())
    with rc_context({"font.family": _font_families()}):  # for ticks that are created while drawing
        figure.savefig(path, dpi=DPI, facecolor=PAPER)


@functools.cache
def _font_families() -> list[str]:
    """Register the font of `style`; DejaVu Sans has the symbols that it lacks."""
    # matplotlib reads fonts from files only; this one is deleted at the end of the process.
    folder = Path(_FONT_FOLDERS.enter_context(tempfile.TemporaryDirectory()))
    regular = font(10)
    (folder / "regular.ttf").write_bytes(regular.font_bytes)
    font_manager.fontManager.addfont(folder / "regular.ttf")
    return [str(regular.getname()[0]), "DejaVu Sans"]


_LABELS = {
    "loss": "loss (minimised)",
    "squared_error": "squared error per image",
    "log_likelihood": "E[log p(x|z)], nats per image",
    "kl": "KL(q(z|x) ‖ p(z)), nats per image",
    "jacobian": "‖∂h/∂x‖²",
    "penalty": "sparsity penalty, unweighted",
    "sigma": "σ of the decoder",
    "discriminator_loss": "discriminator loss (log 4: chance)",
    "generator_loss": "adversarial loss of the generator",
    "feature_error": "−E[log p(Dis_l(x)|z)], nats per image",
    "frechet_distance": "Fréchet distance of samples",
    "coverage": "coverage of the test images",
    "diversity": "variance of samples / of images",
    "classes_covered": "classes among the samples",
}
