"""Plots of the latent space: a scatter plot of latents, and interpolations."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from latentserve_training.evaluate.metric import BATCH, NOISE_SEED, Metric, Subject
from latentserve_training.pixels import to_float
from latentserve_training.report.plots import Row, draw_rows, save
from latentserve_training.report.style import ACCENT, INK, MUTED

SCATTERED = 5000  # test images, at most
PAIRS = 6
STEPS = 9  # from one latent vector to the other, both included
NAMED_CLASSES = 20  # with more, a colour scale replaces the legend


def draw_latents(subject: Subject, metrics: dict[str, Metric], title: str, path: Path) -> None:
    """Draw the latents of test images as points, coloured by class if there are labels.

    Two latents are the axes; more are projected onto their first two principal components.
    """
    test = subject.data.test[:SCATTERED]
    with torch.inference_mode():
        latents = torch.cat(
            [subject.model.posterior(to_float(batch))[0] for batch in torch.split(test, BATCH)]
        )
    points, axis_names = project(latents.double().numpy())
    x, y = points.T
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    labels = subject.data.labels
    if labels is None:
        axes.scatter(x, y, s=5, color=ACCENT, alpha=0.5, linewidths=0)
    else:
        _scatter_classes(axes, points, labels.test[: len(test)].numpy())
    axes.set_xlabel(axis_names[0], fontsize=9, color=INK)
    axes.set_ylabel(axis_names[1], fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}: latents of {len(test):,} test images", fontsize=10, color=INK)
    save(figure, path)


def project(latents: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Project latents ``[n, d]`` to points ``[n, 2]``; return them with the names of the axes.

    The directions are the leading eigenvectors of the covariance of the latents (Pearson 1901).
    """
    if latents.shape[1] == 1:
        return np.column_stack([latents, np.zeros(len(latents))]), ("latent 1 (of 1)", "")
    if latents.shape[1] == 2:
        return latents, ("latent 1", "latent 2")
    centred = latents - latents.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(latents))
    shares = 100 * variances[::-1] / max(variances.sum(), np.finfo(float).tiny)
    first, second = (
        f"{rank} principal component: {share:.0f} % of the variance"
        for rank, share in zip(("first", "second"), shares, strict=False)
    )
    return centred @ directions[:, :-3:-1], (first, second)


def draw_interpolation(
    subject: Subject, metrics: dict[str, Metric], title: str, path: Path
) -> None:
    """Draw decoded interpolations between pairs of latent vectors, one pair per row.

    The latents are those of the first test images or, for a kind without an encoder, samples from
    the prior. None is selected by hand.
    """
    model = subject.model
    test = to_float(subject.data.test[: 2 * PAIRS])
    test = test[: len(test) // 2 * 2] if len(test) > 1 else test.repeat(2, 1, 1, 1)
    spherical = model.prior == "standard_normal"
    with torch.inference_mode():
        try:
            latents, ends = model.posterior(test)[0], "test images"
        except NotImplementedError:
            generator = torch.Generator().manual_seed(NOISE_SEED)
            latents, ends = model.sample_latents(2 * PAIRS, generator), "samples from the prior"
        paths = interpolate(latents[0::2], latents[1::2], STEPS, spherical)
        images = model.decode(paths.flatten(0, 1)).numpy()
    decoded = images.reshape(len(paths), STEPS, *images.shape[1:])
    headings = ["t = 0", *(f"{step / (STEPS - 1):.3g}" for step in range(1, STEPS))]
    if ends == "test images":
        starts, finishes = test[0::2, None].numpy(), test[1::2, None].numpy()
        strips = np.concatenate([starts, decoded, finishes], axis=1)
        headings = ["image", *headings, "image"]
    else:
        strips = decoded
    rows: list[Row] = [("", strip) for strip in strips]
    line = "great circle" if spherical else "straight line"
    draw_rows(rows, f"{title}: decoded along the {line} between {ends}", path, headings)


def interpolate(start: Tensor, end: Tensor, steps: int, spherical: bool) -> Tensor:
    """Points from ``start`` to ``end``, both ``[n, d]``: ``[n, steps, d]``, the ends included.

    Spherical (Shoemake 1985, SIGGRAPH; White 2016, 1609.04468):
        sin((1 − t) Ω) / sin Ω · start + sin(t Ω) / sin Ω · end, Ω the angle between them.
    A standard normal in many dimensions has nearly all its mass at one distance from the origin;
    a straight line would lead through a region of almost no mass.
    """
    t = torch.linspace(0.0, 1.0, steps, dtype=start.dtype)[None, :, None]
    straight = (1.0 - t) * start[:, None] + t * end[:, None]
    if not spherical:
        return straight
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1.0, 1.0)
    angle = torch.acos(cosine)[:, None, None]
    curved = (
        torch.sin((1.0 - t) * angle) * start[:, None] + torch.sin(t * angle) * end[:, None]
    ) / torch.sin(angle)
    # Collinear with the origin: the great circle is not unique.
    return torch.where(torch.sin(angle).abs() < 1e-4, straight, curved)


def _scatter_classes(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    classes, (x, y) = np.unique(labels), points.T
    if len(classes) > NAMED_CLASSES:
        drawn = axes.scatter(x, y, s=5, c=labels, cmap="viridis", alpha=0.6, linewidths=0)
        axes.figure.colorbar(drawn, ax=axes, label="class")
        return
    palette = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    colours = {each: palette(index) for index, each in enumerate(classes)}
    # In the order of the images, so that no class covers the others.
    axes.scatter(x, y, s=6, c=[colours[each] for each in labels], alpha=0.55, linewidths=0)
    for each in classes:
        axes.scatter([], [], s=24, color=colours[each], label=str(each))
        # The name at the class median: not everybody can distinguish ten colours.
        axes.annotate(
            str(each),
            np.median(points[labels == each], axis=0),
            fontsize=13,
            color=colours[each],
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3.5, foreground="white")],
        )
    axes.figure.legend(
        loc="outside right center", title="class", fontsize=8, title_fontsize=8, frameon=False
    )
