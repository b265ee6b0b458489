"""Linear probe: a linear classifier of latents or other features.

Multinomial logistic regression, p(y | h) = softmax(A h + a), fitted by L-BFGS to the cross-entropy
plus a weight decay. The problem is convex, so the result does not depend on a seed. Sparse latents
of many units need more weight decay than pixels, so it is selected on held-out images.
Alain & Bengio 2016 (1610.01644).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Relative to the mean cross-entropy, for features of unit mean square; largest first, so that each
# fit starts near its solution.
WEIGHT_DECAYS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
ITERATIONS = 60  # for each weight decay


@dataclass(frozen=True)
class Probe:
    """A fitted classifier."""

    scale: Tensor  # scalar by which features are divided
    weight: Tensor  # [classes, d]
    bias: Tensor  # [classes]

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """The share of rows ``[n, d]`` whose label, int64 ``[n]``, is the most probable class."""
        predicted = functional.linear(features / self.scale, self.weight, self.bias).argmax(1)
        return float((predicted == labels).double().mean())


def fit_probe(features: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> Probe:
    """Fit to features ``[n, d]`` and labels, int64 ``[n]``, which count from 0.

    Args:
        features: Features of the training images, for example their latents.
        labels: Labels of the training images.
        held_out: Features of other images, on which the weight decay is selected.
        held_out_labels: Labels of these images.
    """
    classes = int(labels.max()) + 1
    probes: list[tuple[float, Probe]] = []
    # Metrics are computed in inference mode, which does not allow gradients.
    with torch.inference_mode(False), torch.enable_grad():
        scale = features.square().mean().sqrt().clone()
        rows, targets = features / scale, labels.clone()
        weight = torch.zeros(classes, features.shape[1], requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        for weight_decay in WEIGHT_DECAYS:
            _minimise(rows, targets, weight, bias, weight_decay)
            probe = Probe(scale, weight.detach().clone(), bias.detach().clone())
            probes.append((probe.accuracy(held_out, held_out_labels), probe))
    return max(probes, key=lambda scored: scored[0])[1]


def _minimise(
    rows: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, weight_decay: float
) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(functional.linear(rows, weight, bias), targets)
        loss = loss + 0.5 * weight_decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
