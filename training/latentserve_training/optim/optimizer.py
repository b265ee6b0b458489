"""Optimiser configuration and single optimiser steps, in one or several processes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentserve_training import distributed
from latentserve_training.errors import NonFiniteLossError


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The fields of the ``[optimizer]`` table."""

    learning_rate: float = 2e-3  # peak: the rate rises for warmup_steps, then falls as a cosine
    warmup_steps: int = 200
    beta1: float = 0.9
    beta2: float = 0.999
    max_gradient_norm: float = 0.0  # 0 turns clipping off

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError("learning_rate must be above 0")
        if self.warmup_steps < 0:
            raise ValueError("warmup_steps must be 0 or more")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ValueError("beta1 and beta2 must lie in [0, 1)")
        if self.max_gradient_norm < 0:
            raise ValueError("max_gradient_norm must be 0 (off) or more")


def minimise(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    max_gradient_norm: float,
    terms: Mapping[str, Tensor] | None = None,
) -> None:
    """Take one step of ``optimizer`` down the gradient of ``loss``.

    Args:
        loss: Scalar.
        optimizer: Optimiser of the weights to change.
        max_gradient_norm: See :func:`take_step`.
        terms: Terms of the loss by name; an error then names the term that is not finite.

    Raises:
        NonFiniteLossError: If the loss or its gradient is NaN or infinite; no weight has changed.
    """
    optimizer.zero_grad(set_to_none=True)
    if not bool(torch.isfinite(loss)):
        _skip_in_all_processes(optimizer, max_gradient_norm)
        raise NonFiniteLossError(f"the loss is {loss.item()}{_name_bad_terms(terms or {})}")
    loss.backward()  # type: ignore[no-untyped-call]
    take_step(optimizer, max_gradient_norm)


def take_step(optimizer: torch.optim.Optimizer, max_gradient_norm: float) -> None:
    """Take a step with the current gradients, clipped to ``max_gradient_norm`` (0: not clipped).

    All kinds of model take their steps here. If several processes train the model, the gradients
    are averaged over them first, so all processes must call this for the same steps: a condition
    for a step must have the same result in every process.

    Raises:
        NonFiniteLossError: If the gradient is NaN or infinite; no weight has changed.
    """
    parameters = _parameters(optimizer)
    distributed.average_gradients(parameters)
    limit = max_gradient_norm if max_gradient_norm > 0 else float("inf")
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    if not bool(torch.isfinite(norm)):  # equal in all processes, so no exchange is needed
        raise NonFiniteLossError(f"the gradient is {norm.item()}")
    optimizer.step()


def _skip_in_all_processes(optimizer: torch.optim.Optimizer, max_gradient_norm: float) -> None:
    """Make the other processes, which wait for the gradients of this one, skip the step too."""
    if distributed.size() == 1:
        return
    for parameter in _parameters(optimizer):
        parameter.grad = torch.full_like(parameter, float("nan"))
    with suppress(NonFiniteLossError):  # the caller raises the error with the loss that caused it
        take_step(optimizer, max_gradient_norm)
    optimizer.zero_grad(set_to_none=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def _name_bad_terms(terms: Mapping[str, Tensor]) -> str:
    bad = [
        f"{name} {value.item()}"
        for name, value in terms.items()
        if name != "loss" and not bool(torch.isfinite(value).all())
    ]
    return f" ({', '.join(bad)})" if bad else ""


def require_finite(name: str, value: Tensor) -> None:
    """Check that every element is finite in every process that trains this model.

    All processes must call it, so it must not be called in validation, which only the first
    process does.

    Raises:
        NonFiniteLossError: If an element is NaN or infinite; the message contains ``name``.
    """
    bad = value.detach()[~torch.isfinite(value.detach())]
    if not distributed.true_in_all_processes(not len(bad)):
        raise NonFiniteLossError(
            f"{name} is {bad[0].item() if len(bad) else 'not finite in another process'}"
        )
