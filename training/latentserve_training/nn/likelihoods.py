"""Likelihoods p(x|z) of a decoder: Gaussian or Bernoulli.

A Gaussian has one σ for all pixels, and ``sigma_mode`` chooses its source:

``fixed``    ``initial_sigma``, which acts as a hidden weight on the KL term. With σ = 1 and pixels
             in [0, 1] the model uses latents only for directions with a variance above 1; the
             others collapse to the prior (Lucas et al. 2019, 1911.02469).
``learned``  a parameter like the weights (Rybkin et al. 2020, 2006.13202).
``optimal``  the maximum likelihood of the batch in closed form, σ² = mean squared error (same
             paper). Validation, evaluation and export use a running mean of σ² over the latest
             batches.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentserve_training.nn.losses import cross_entropy, gaussian_log_likelihood

SigmaMode = Literal["fixed", "learned", "optimal"]
MINIMUM_SIGMA = 0.0025  # less than one of 256 grey levels: a smaller σ would fit the rounding
AVERAGED_BATCHES = 100  # window of the running mean of the optimal σ²


class Likelihood(nn.Module, ABC):
    """p(x|z) for a decoder's outputs ``[k · n, c, h, w]``, k for each of n images.

    It holds σ but is not a network: it has no ``forward`` and always computes in float32.
    """

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """The mean of p(x|z), in the shape of the outputs."""

    @abstractmethod
    def log_likelihood(self, outputs: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Log p(x|z) in nats, ``[k, n]``, for images ``[n, c, h, w]``; and scalars to report."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The field ``likelihood`` of the manifest."""

    def update_sigma(self, reported: dict[str, Tensor], step: int) -> None:
        """Update σ from the scalars of :meth:`log_likelihood`, after ``step`` earlier steps."""
        del reported, step  # only an optimal σ is updated


class GaussianLikelihood(Likelihood):
    """p(x|z) = N(g(z), σ²I), where g is the sigmoid of the outputs or the outputs themselves."""

    sigma: Tensor

    def __init__(
        self,
        sigma_mode: SigmaMode,
        initial_sigma: float,
        minimum_sigma: float = MINIMUM_SIGMA,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.sigma_mode = sigma_mode
        self.log_minimum = math.log(minimum_sigma)
        self.linear = linear
        if sigma_mode == "learned":
            # The inverse of the softplus below, so that training starts exactly at initial_sigma.
            ratio = initial_sigma / minimum_sigma
            self.log_sigma_above_minimum = nn.Parameter(torch.tensor(math.log(ratio - 1.0)))
        else:
            self.register_buffer("sigma", torch.tensor(initial_sigma))

    def mean(self, outputs: Tensor) -> Tensor:
        """g(z), in the shape of the outputs; in [0, 1] unless it is linear."""
        return outputs if self.linear else torch.sigmoid(outputs)

    @property
    def log_sigma(self) -> Tensor:
        """Scalar log σ for images outside of a training batch."""
        if self.sigma_mode == "learned":
            return self.log_minimum + nn.functional.softplus(self.log_sigma_above_minimum)
        return self.sigma.log()

    def log_likelihood(self, outputs: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Log p(x|z) in nats, ``[k, n]``; and σ."""
        means = self.mean(outputs)
        repeated = images.repeat(len(means) // len(images), 1, 1, 1)
        optimal = self.sigma_mode == "optimal" and self.training
        log_sigma = (
            optimal_log_sigma(means, repeated, self.log_minimum) if optimal else self.log_sigma
        )
        log_likelihood = gaussian_log_likelihood(means, log_sigma, repeated)
        return log_likelihood.view(-1, len(images)), {"sigma": log_sigma.exp()}

    def update_sigma(self, reported: dict[str, Tensor], step: int) -> None:
        """Update the running mean of σ²: the mean of the first batches, then a moving average."""
        if self.sigma_mode == "optimal":
            share = 1.0 / min(step + 1, AVERAGED_BATCHES)
            batch_variance = reported["sigma"].detach().square()
            self.sigma.copy_(self.sigma.square().lerp(batch_variance, share).sqrt())

    def describe(self) -> dict[str, Any]:
        """The family "gaussian" and its σ."""
        return {"family": "gaussian", "sigma": float(self.log_sigma.detach().exp())}


class BernoulliLikelihood(Likelihood):
    """p(x|z) = Π p^x (1 − p)^(1−x), where p is the sigmoid of the outputs."""

    def mean(self, outputs: Tensor) -> Tensor:
        """The probability that a pixel is 1, in the shape of the outputs."""
        return torch.sigmoid(outputs)

    def log_likelihood(self, outputs: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Log p(x|z) in nats, ``[k, n]``, computed from logits without overflow."""
        repeated = images.repeat(len(outputs) // len(images), 1, 1, 1)
        return -cross_entropy(outputs, repeated).view(-1, len(images)), {}

    def describe(self) -> dict[str, Any]:
        """The family "bernoulli", which has no parameters."""
        return {"family": "bernoulli"}


def optimal_log_sigma(means: Tensor, images: Tensor, log_minimum: float) -> Tensor:
    """Log σ of maximum likelihood: σ² is the mean squared error over all pixels.

    Rybkin et al. 2020 (2006.13202). Scalar and differentiable: the loss becomes half the logarithm
    of the error per pixel. A softplus keeps it above the minimum, as in the paper.
    """
    log_sigma = 0.5 * (means - images).square().mean().log()
    return log_minimum + nn.functional.softplus(log_sigma - log_minimum)
