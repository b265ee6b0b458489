"""Pictures of a run as PNG files: loss curves and grids of images.

Figures are drawn on Agg canvases of their own, without pyplot: no window, no global state.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latentserve_training.baselines import to_rows
from latentserve_training.measure import NOISE_SEED, Metric, Subject
from latentserve_training.reconstruction_metrics import denoising_baseline, denoising_model
from latentserve_training.scaling import to_float

COLUMNS = 10
SAMPLES = 100
DPI = 150
INK, MUTED = "#222222", "#777777"
SPLITS = {"train": "#9aa5b1", "validation": "#0b6e99"}
ZOOM_AFTER_EPOCHS = 5

Row = tuple[str, np.ndarray]
"""A label, and float images ``[n, c, h, w]`` in [0, 1]."""


def draw_curves(history: Sequence[dict[str, Any]], best_epoch: int, title: str, path: Path) -> None:
    """Draw every loss over the epochs, training beside validation where there are both."""
    names = list(dict.fromkeys(_without_split(key) for key in history[0] if _without_split(key)))
    # A plain autoencoder's loss is its squared error: the same curve twice tells nothing.
    if any(name != "loss" and _same_curve(history, name, "loss") for name in names):
        names.remove("loss")
    columns = 1 if len(names) == 1 else 2
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.3 * rows + 0.3), layout="constrained")
    epochs = [row["epoch"] for row in history]
    panels = np.ravel(figure.subplots(rows, columns))
    for unused in panels[len(names) :]:
        unused.remove()
    for axes, name in zip(panels, names, strict=False):
        marker = "o" if len(epochs) == 1 else None
        curves = _curves(history, name)
        for prefix, values in curves.items():
            colour = SPLITS[prefix]
            axes.plot(epochs, values, color=colour, label=prefix, marker=marker, linewidth=1.8)
        if len(history) > ZOOM_AFTER_EPOCHS:
            _zoom(axes, [value for values in curves.values() for value in values[1:]])
        axes.axvline(best_epoch, color=MUTED, linewidth=0.8, linestyle=":", label="best epoch")
        axes.set_title(_LABELS.get(name, name), fontsize=10, color=INK)
        axes.set_xlabel("epoch", fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelsize=8, colors=MUTED)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11, color=INK)
    _save(figure, path)


def draw_reconstructions(
    subject: Subject, metrics: dict[str, Metric], title: str, path: Path
) -> None:
    """Draw test images, their reconstructions and, where there is one, the baseline's."""
    model, test = subject.model, subject.data.test[:COLUMNS]
    with torch.inference_mode():
        reconstructions = model.reconstruct(to_float(test)).numpy()
    metric = metrics["test_mse"]
    rows = [
        ("test image", to_float(test).numpy()),
        (f"model\nMSE {metric.value:.4f}", reconstructions),
    ]
    if metric.baseline_value is not None:
        pca = subject.pca.reconstruct(to_rows(test), model.numbers_per_image).reshape(test.shape)
        rows.append((f"{metric.baseline_name}\nMSE {metric.baseline_value:.4f}", pca))
    _draw_rows(rows, f"{title}: reconstructions from {model.numbers_per_image} numbers", path)


def draw_denoised(subject: Subject, metrics: dict[str, Metric], title: str, path: Path) -> None:
    """Draw noisy test images, the model's answer and, if there is one, the Wiener filter's."""
    model = denoising_model(subject)
    test = subject.data.test[:COLUMNS]
    with torch.inference_mode():
        noisy = model.corrupt(to_float(test), torch.Generator().manual_seed(NOISE_SEED))
        denoised = model.reconstruct(noisy).numpy()
    metric = metrics["test_psnr_db"]
    gaussian = model.corruption == "gaussian"
    noise = f"noise σ {model.level:g}" if gaussian else f"{100 * model.level:g} % lost"
    rows = [
        ("test image", to_float(test).numpy()),
        (noise, noisy.numpy()),
        (f"model\n{metric.value:.2f} dB", denoised),
    ]
    if gaussian:
        _, filtered = denoising_baseline(subject, noisy.flatten(1).double().numpy())
        label = f"Wiener filter\n{metric.baseline_value:.2f} dB"
        rows.append((label, filtered.reshape(test.shape)))
    _draw_rows(rows, f"{title}: denoised test images", path)


def draw_samples(subject: Subject, metrics: dict[str, Metric], title: str, path: Path) -> None:
    """Draw decoded draws from the prior; none is chosen by hand."""
    model = subject.model
    generator = torch.Generator().manual_seed(NOISE_SEED)
    with torch.inference_mode():
        samples = model.decode(model.draw_latents(SAMPLES, generator)).numpy()
    rows = [("", samples[start : start + COLUMNS]) for start in range(0, SAMPLES, COLUMNS)]
    _draw_rows(rows, f"{title}: {SAMPLES} samples from the prior", path)


def _without_split(key: str) -> str:
    """The loss of a column such as ``train_kl``; empty for what is no loss."""
    split, _, name = key.partition("_")
    return name if split in SPLITS else ""


def _curves(history: Sequence[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """The values of a loss over the epochs, for each split that has it."""
    keys = {prefix: f"{prefix}_{name}" for prefix in SPLITS if f"{prefix}_{name}" in history[0]}
    return {prefix: [row[key] for row in history] for prefix, key in keys.items()}


def _same_curve(history: Sequence[dict[str, Any]], first: str, second: str) -> bool:
    return _curves(history, first) == _curves(history, second)


def _zoom(axes: Axes, values: Sequence[float]) -> None:
    """Fit the axis to these values: the first epoch would leave the others a flat line."""
    margin = 0.05 * (max(values) - min(values)) or 1.0
    axes.set_ylim(min(values) - margin, max(values) + margin)


def _draw_rows(rows: Sequence[Row], title: str, path: Path) -> None:
    columns = max(len(images) for _, images in rows)
    labels_inch = 1.15 if any(label for label, _ in rows) else 0.1
    cell_inch, title_inch = 0.62, 0.42
    width = labels_inch + columns * cell_inch + 0.1
    height = title_inch + len(rows) * cell_inch + 0.1
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.26 / height, title, fontsize=10, color=INK, va="center")
    for row, (label, images) in enumerate(rows):
        bottom = (height - title_inch - (row + 1) * cell_inch) / height
        figure.text(
            (labels_inch - 0.1) / width,
            bottom + 0.5 * cell_inch / height,
            label,
            fontsize=8,
            color=INK,
            ha="right",
            va="center",
        )
        for column, image in enumerate(images):
            left = (labels_inch + column * cell_inch) / width
            axes = figure.add_axes((left, bottom, 0.58 / width, 0.58 / height))
            pixels = np.clip(image.transpose(1, 2, 0), 0.0, 1.0)
            axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            axes.set_axis_off()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI, facecolor="white")


_LABELS = {
    "loss": "loss (minimised)",
    "squared_error": "squared error per image",
    "log_likelihood": "E[log p(x|z)], nats per image",
    "kl": "KL(q(z|x) ‖ p(z)), nats per image",
    "jacobian": "‖∂h/∂x‖²",
    "penalty": "sparsity penalty, unweighted",
    "sigma": "σ of the decoder",
    "discriminator_loss": "discriminator's loss (log 4: cannot tell)",
    "generator_loss": "generator's adversarial loss",
    "feature_error": "−E[log p(Dis_l(x)|z)], nats per image",
    "frechet_distance": "Fréchet distance of samples",
    "coverage": "coverage: images with a sample near",
    "diversity": "variance of samples / of images",
    "classes_covered": "classes among the samples",
}

FIGURES: dict[str, Callable[[Subject, dict[str, Metric], str, Path], None]] = {
    "reconstructions": draw_reconstructions,
    "denoised": draw_denoised,
    "samples": draw_samples,
}
