"""The linear probe: how much of an image's class a linear classifier finds in a code.

Multinomial logistic regression, p(y | h) = softmax(A h + a), fitted by L-BFGS to the cross-entropy
plus a weight decay; the problem is convex, so the answer does not depend on a seed. Sparse codes
of many units need more decay than pixels do: each gets what suits it on held-out images.
Alain & Bengio 2016 (1610.01644).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Beside the mean cross-entropy, for codes of unit mean square; largest first, so that each fit
# starts near its end.
WEIGHT_DECAYS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
ITERATIONS = 60  # for each of them


@dataclass(frozen=True)
class Probe:
    """A fitted classifier."""

    scale: Tensor  # scalar: codes are divided by it
    weight: Tensor  # [classes, d]
    bias: Tensor  # [classes]

    def accuracy(self, codes: Tensor, labels: Tensor) -> float:
        """The share of codes ``[n, d]`` whose label, int64 ``[n]``, is the likeliest."""
        guesses = functional.linear(codes / self.scale, self.weight, self.bias).argmax(1)
        return float((guesses == labels).double().mean())


def fit_probe(codes: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> Probe:
    """Fit to codes ``[n, d]`` and labels, int64 ``[n]``, which count from 0.

    Args:
        codes: Of the training images.
        labels: Theirs.
        held_out: Codes of other images, which choose the weight decay.
        held_out_labels: Theirs.
    """
    classes = int(labels.max()) + 1
    probes: list[tuple[float, Probe]] = []
    # Called while measuring, in inference mode, where nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        scale = codes.square().mean().sqrt().clone()
        rows, targets = codes / scale, labels.clone()
        weight = torch.zeros(classes, codes.shape[1], requires_grad=True)
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
