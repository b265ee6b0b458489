"""Plots of a run by name; each kind of model lists its own (``LatentModel.plots``)."""

from collections.abc import Callable
from pathlib import Path

from latentserve_training.evaluate.metric import Metric, Subject
from latentserve_training.report.latent_plots import draw_interpolation, draw_latents
from latentserve_training.report.plots import draw_denoised, draw_reconstructions, draw_samples

FIGURES: dict[str, Callable[[Subject, dict[str, Metric], str, Path], None]] = {
    "reconstructions": draw_reconstructions,
    "denoised": draw_denoised,
    "samples": draw_samples,
    "latents": draw_latents,
    "interpolation": draw_interpolation,
}
