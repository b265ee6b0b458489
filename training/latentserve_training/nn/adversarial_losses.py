"""The losses of two networks that play against each other, and what keeps the game fair.

Goodfellow et al. 2014 (1406.2661), equation 1:
    min_G max_D V(D, G),  V = E_x[log D(x)] + E_z[log(1 − D(G(z)))].
Written with logits l, D = sigmoid(l), nothing overflows: log D = −softplus(−l) and
log(1 − D) = −softplus(l). For a fixed generator the best D is p_data / (p_data + p_G), and then
V = 2 JS(p_data ‖ p_G) − log 4 (theorem 1): where the two are equal D = 1/2 everywhere, and the
discriminator's loss −V is log 4 = 1.386.

Logits are ``[n]``, one per image, in all of these.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["non_saturating", "minimax"]


def real_cost(logits: Tensor) -> Tensor:
    """−log D(x), the mean over images that are real, in nats."""
    return functional.softplus(-logits).mean()


def fake_cost(logits: Tensor) -> Tensor:
    """−log(1 − D(x)), the mean over images that are not, in nats."""
    return functional.softplus(logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """−V(D, G), which D minimises: the sum of two cross-entropies, in nats."""
    return real_cost(real_logits) + fake_cost(fake_logits)


def generator_loss(fake_logits: Tensor, objective: Objective) -> Tensor:
    """What G minimises, in nats.

    ``minimax``: E[log(1 − D(G(z)))], the game as it is written. Its gradient −D vanishes where D
        is sure, which is where G has most to learn.
    ``non_saturating``: −E[log D(G(z))], section 3 of the paper. The same fixed point; its gradient
        −(1 − D) is largest there.
    """
    return real_cost(fake_logits) if objective == "non_saturating" else -fake_cost(fake_logits)


def gradient_penalty(real_logits: Tensor, images: Tensor) -> Tensor:
    """R₁ = ½ E‖∇_x l(x)‖² at real images (Mescheder et al. 2018, 1801.04406, equation 9).

    Without it the game need not converge: D may stay steep at the data even where G is right.

    Args:
        real_logits: Of ``images``, computed from them with a gradient.
        images: ``[n, c, h, w]``, requiring a gradient.
    """
    (slopes,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return 0.5 * slopes.flatten(1).square().sum(1).mean()


def equilibrium_gate(real: float, fake: float, margin: float) -> tuple[bool, bool]:
    """Whether to train the discriminator and the decoder in this step.

    From the published code of Larsen et al. 2016 (1512.09300): at the equilibrium each of the two
    costs is log 2 (0.68 there). Who is ahead by more than the margin waits for the other; where
    both would wait, neither does.

    Args:
        real: :func:`real_cost` of this batch.
        fake: :func:`fake_cost` of this batch.
        margin: In nats.
    """
    equilibrium = 0.68
    discriminator = min(real, fake) >= equilibrium - margin
    decoder = max(real, fake) <= equilibrium + margin
    return (discriminator, decoder) if discriminator or decoder else (True, True)
