"""Losses of adversarial training, the R₁ gradient penalty and the equilibrium rule.

Goodfellow et al. 2014 (1406.2661), equation 1:
    min_G max_D V(D, G),  V = E_x[log D(x)] + E_z[log(1 − D(G(z)))].
Computed from logits l, with D = sigmoid(l), it does not overflow: log D = −softplus(−l) and
log(1 − D) = −softplus(l). For a fixed generator the optimal D is p_data / (p_data + p_G), and then
V = 2 JS(p_data ‖ p_G) − log 4 (theorem 1): if the two distributions are equal, D = 1/2 everywhere,
and the discriminator's loss −V is log 4 = 1.386.

All functions take logits ``[n]``, one per image.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["non_saturating", "minimax"]


def real_cost(logits: Tensor) -> Tensor:
    """−log D(x), the mean over real images, in nats."""
    return functional.softplus(-logits).mean()


def fake_cost(logits: Tensor) -> Tensor:
    """−log(1 − D(x)), the mean over generated images, in nats."""
    return functional.softplus(logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """−V(D, G), the loss of D: the sum of two cross-entropies, in nats."""
    return real_cost(real_logits) + fake_cost(fake_logits)


def generator_loss(fake_logits: Tensor, objective: Objective) -> Tensor:
    """The loss of G, in nats.

    ``minimax``: E[log(1 − D(G(z)))], as in equation 1. Its gradient −D vanishes where D rejects
        the samples with confidence, so G does not learn from its worst samples.
    ``non_saturating``: −E[log D(G(z))], section 3 of the paper. It has the same fixed point, and
        its gradient −(1 − D) is largest for these samples.
    """
    return real_cost(fake_logits) if objective == "non_saturating" else -fake_cost(fake_logits)


def gradient_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """R₁ = ½ E‖∇_x l(x)‖² at real images (Mescheder et al. 2018, 1801.04406, equation 9).

    Without it training need not converge: D can keep a large slope at the data even if G is
    optimal.

    Args:
        real_logits: Logits of ``images``, computed from them with a gradient.
        images: ``[n, c, h, w]``, requiring a gradient.
    """
    (slopes,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return 0.5 * slopes.flatten(1).square().sum(1).mean()


def equilibrium_rule(real: float, fake: float, margin: float) -> tuple[bool, bool]:
    """Whether to train the discriminator and the decoder in this step.

    From the published code of Larsen et al. 2016 (1512.09300): at the equilibrium each of the two
    costs is log 2 (0.68 in that code). The network that is ahead by more than the margin is not
    trained in this step; if that holds for both, both are trained.

    Args:
        real: :func:`real_cost` of this batch.
        fake: :func:`fake_cost` of this batch.
        margin: Distance from the equilibrium, in nats.
    """
    equilibrium = 0.68
    discriminator = min(real, fake) >= equilibrium - margin
    decoder = max(real, fake) <= equilibrium + margin
    return (discriminator, decoder) if discriminator or decoder else (True, True)
