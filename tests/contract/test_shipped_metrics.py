"""Bounds of the metrics of the shipped models, so that a worse model is detected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXPORTS = Path(__file__).resolve().parents[2] / "exports"


def metrics_of(name: str) -> dict[str, Any]:
    newest = max((EXPORTS / name).iterdir(), key=lambda folder: int(folder.name))
    document = json.loads((newest / "manifest.json").read_text("utf-8"))
    metrics: dict[str, Any] = document["metrics"]
    return metrics


def times_baseline(metric: dict[str, Any]) -> float:
    ratio: float = metric["value"] / metric["baseline"]["value"]
    return ratio


@pytest.mark.parametrize(("name", "largest"), [("mnist-ae", 0.0035), ("mnist-sparse", 0.0070)])
def test_the_error_of_an_autoencoder_is_a_fraction_of_that_of_pca(
    name: str, largest: float
) -> None:
    error = metrics_of(name)["test_mse"]
    assert error["value"] <= largest
    assert times_baseline(error) < 0.4


def test_the_linear_autoencoder_is_pca() -> None:
    error = metrics_of("mnist-linear")["test_mse_unclipped"]
    assert error["baseline"]["name"] == "PCA-32"
    assert times_baseline(error) <= 1.001


def test_contractive_latents_vary_little_and_the_error_grows_little() -> None:
    metrics = metrics_of("mnist-contractive")
    assert metrics["test_jacobian"]["baseline"]["name"] == "plain autoencoder"
    assert metrics["test_mse_beside_plain"]["baseline"]["name"] == "plain autoencoder"
    assert times_baseline(metrics["test_jacobian"]) <= 1 / 5
    assert times_baseline(metrics["test_mse_beside_plain"]) <= 1.1
