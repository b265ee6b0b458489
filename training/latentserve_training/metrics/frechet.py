"""Fréchet distance between two sets of features, each approximated by a normal distribution.

Heusel et al. 2017 (1706.08500), equation 6, with any features. torchmetrics computes it; the module
below passes it features in place of images.
"""

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

BATCH = 2000


class GivenFeatures(nn.Module):
    """Replacement for the Inception network that returns its input, which are features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features  # torchmetrics reads this attribute

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[n, d]`` in float64: their covariances span many orders of magnitude."""
        return features.double()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two sets of features, ``[n, d]`` and ``[m, d]``.

    The squared distance, as usual for FID, in float64. It is biased: the distance grows as sets get
    smaller, so only sets of equal size are comparable (Chong & Forsyth 2020, 1911.07023).
    """
    # Features need no gradient, and torchmetrics may write to inference tensors only in this mode.
    with torch.inference_mode():
        metric = FrechetInceptionDistance(GivenFeatures(first.shape[1])).set_dtype(torch.float64)
        for features, real in ((first, True), (second, False)):
            for batch in torch.split(features, BATCH):
                metric.update(batch, real=real)
        return float(metric.compute())
