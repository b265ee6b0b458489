"""The Fréchet distance between two sets of features, each taken for a normal distribution.

Heusel et al. 2017 (1706.08500), equation 6, with any features: torchmetrics computes it, from
features that it is given instead of images.
"""

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

BATCH = 2000


class GivenFeatures(nn.Module):
    """In the place of the Inception network: what comes in are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features  # torchmetrics asks for it by this name

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[n, d]`` in float64: the covariances of 64 features span many orders."""
        return features.double()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two sets of features, ``[n, d]`` and ``[m, d]``.

    The squared distance, as everywhere under the name FID, in float64. It is biased: smaller sets
    are further apart, so that only sets of one size compare (Chong & Forsyth 2020, 1911.07023).
    """
    # Features are differentiated nowhere; inference tensors may not be written to outside of it.
    with torch.inference_mode():
        metric = FrechetInceptionDistance(GivenFeatures(first.shape[1])).set_dtype(torch.float64)
        for features, real in ((first, True), (second, False)):
            for batch in torch.split(features, BATCH):
                metric.update(batch, real=real)
        return float(metric.compute())
