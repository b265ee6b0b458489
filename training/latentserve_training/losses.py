"""Losses and log-likelihoods.

Every function sums over pixels or latents and keeps one value per image, in nats where it is a
log-probability; callers take the mean over the batch. Averaging over pixels instead would weight
the reconstruction against any other term by 1 / (number of pixels) without saying so: a hidden β
(Higgins et al. 2017) of that number.

Shapes: images ``[n, c, h, w]``, latents ``[n, d]``, results ``[n]``.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def squared_error(reconstruction: Tensor, images: Tensor) -> Tensor:
    """‖x − x̂‖², summed over the pixels of each image.

    Up to a constant and a factor this is −log p(x|z) of a Gaussian decoder with a fixed σ.
    """
    return (reconstruction - images).square().flatten(1).sum(1)


def cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """−Σ x log p + (1 − x) log(1 − p) with p = sigmoid(logits), in nats per image.

    Takes logits, not probabilities: log(sigmoid(l)) is computed without overflow. For grey pixels
    it is a loss, not a likelihood; it is the Bernoulli likelihood where pixels are 0 or 1.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return loss.flatten(1).sum(1)


def gaussian_log_likelihood(mean: Tensor, log_sigma: Tensor, images: Tensor) -> Tensor:
    """The log-density of N(mean, σ²I) at the images, in nats per image; one σ for all pixels.

    Kingma & Welling 2013 (1312.6114), appendix C.2, with the shared, learned σ of Rybkin et al.
    2020 (2006.13202), equation 3.

    Args:
        mean: The decoder's output, ``[n, c, h, w]``.
        log_sigma: Scalar, the natural logarithm of σ in the pixels' units.
        images: ``[n, c, h, w]``.
    """
    pixels = images[0].numel()
    scaled_error = 0.5 * squared_error(mean, images) * torch.exp(-2.0 * log_sigma)
    return -scaled_error - pixels * (log_sigma + HALF_LOG_2PI)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) ‖ N(0, I)) in nats per image.

    Kingma & Welling 2013 (1312.6114), appendix B: ½ Σ (μ² + σ² − 1 − log σ²).

    Args:
        mean: ``[n, d]``.
        log_variance: ``[n, d]``, natural logarithm of the variance.
    """
    # expm1 keeps the digits where the posterior is close to the prior.
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance).sum(1)
