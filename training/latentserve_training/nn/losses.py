"""Losses and log-likelihoods, one value per image.

Every function sums over pixels or latents; log-probabilities are in nats. Callers take the mean
over the batch. Averaging over pixels instead would scale the reconstruction term by 1 / (number of
pixels) against any other term: a hidden β (Higgins et al. 2017) equal to the number of pixels.

Shapes: images ``[n, c, h, w]``, latents ``[n, d]``, results ``[n]``.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def squared_error(reconstruction: Tensor, images: Tensor) -> Tensor:
    """‖x − x̂‖², summed over the pixels of each image.

    Up to a constant and a factor it is −log p(x|z) of a Gaussian decoder with a fixed σ.
    """
    return (reconstruction - images).square().flatten(1).sum(1)


def cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """−Σ x log p + (1 − x) log(1 − p) with p = sigmoid(logits), in nats per image.

    From logits, log(sigmoid(l)) is computed without overflow. It is the Bernoulli likelihood if
    pixels are 0 or 1; for grey pixels it is a loss and not a likelihood.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    return loss.flatten(1).sum(1)


def gaussian_log_likelihood(mean: Tensor, log_sigma: Tensor, images: Tensor) -> Tensor:
    """The log-density of N(mean, σ²I) at the images, in nats per image; one σ for all pixels.

    Kingma & Welling 2013 (1312.6114), appendix C.2, with the shared, learned σ of Rybkin et al.
    2020 (2006.13202), equation 3.

    Args:
        mean: The decoder's output, ``[n, c, h, w]``.
        log_sigma: Scalar, the natural logarithm of σ in the units of the pixels.
        images: ``[n, c, h, w]``.
    """
    pixels = images[0].numel()
    scaled_error = 0.5 * squared_error(mean, images) * torch.exp(-2.0 * log_sigma)
    return -scaled_error - pixels * (log_sigma + HALF_LOG_2PI)


def kl_by_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) ‖ N(0, I)) in nats for each latent, ``[n, d]``.

    Kingma & Welling 2013 (1312.6114), appendix B: ½ (μ² + σ² − 1 − log σ²).

    Args:
        mean: ``[n, d]``.
        log_variance: ``[n, d]``, natural logarithm of the variance.
    """
    # expm1 keeps the precision if the posterior is close to the prior.
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) ‖ N(0, I)) in nats per image: the sum over latents."""
    return kl_by_latent(mean, log_variance).sum(1)


def log_prior_over_posterior(latents: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log p(z) − log q(z|x) at samples from q, in nats; its mean over q is minus the KL.

    Args:
        latents: ``[k, n, d]``, k samples for each image.
        mean: Mean of q, ``[n, d]``.
        log_variance: Log-variance of q, ``[n, d]``.

    Returns:
        ``[k, n]``. The normalising constants of the two normal densities cancel.
    """
    log_prior = latents.square()
    log_posterior = (latents - mean).square() * torch.exp(-log_variance) + log_variance
    return 0.5 * (log_posterior - log_prior).sum(2)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """Log 1/k Σ w of k importance weights ``[k, n]`` per image: a lower bound of log p(x), ``[n]``.

    Burda et al. 2015 (1509.00519), equation 8, with w = p(x|z) p(z) / q(z|x) and z from q(z|x).
    k = 1 gives a one-sample ELBO; the expected bound rises with k towards log p(x) (theorem 1).
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
