"""Optimiser settings and single optimiser steps, over one or several processes."""

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

    learning_rate: float = 2e-3  # at the peak: it rises for warmup_steps, then falls as a cosine
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
        optimizer: Of the weights to change.
        max_gradient_norm: See :func:`take_step`.
        terms: What the loss consists of, by name: an error then says which of them is not finite.

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
    """Step with the gradients that are there, at most ``max_gradient_norm`` long (0: any).

    Every kind's steps come through here: where several processes train the model, the gradients
    are averaged over them first. So all must come here alike; what decides whether there is a step
    must be the same in every process.

    Raises:
        NonFiniteLossError: If the gradient is NaN or infinite; no weight has changed.
    """
    parameters = _parameters(optimizer)
    distributed.average_gradients(parameters)
    limit = max_gradient_norm if max_gradient_norm > 0 else float("inf")
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    if not bool(torch.isfinite(norm)):  # the same in every process, so they need not ask each other
        raise NonFiniteLossError(f"the gradient is {norm.item()}")
    optimizer.step()


def _skip_in_all_processes(optimizer: torch.optim.Optimizer, max_gradient_norm: float) -> None:
    """Let the other processes, which wait for this one's gradients, skip the step as well."""
    if distributed.size() == 1:
        return
    for parameter in _parameters(optimizer):
        parameter.grad = torch.full_like(parameter, float("nan"))
    with suppress(NonFiniteLossError):  # the loss that the caller tells of is what caused it
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


def require_finite(what: str, value: Tensor) -> None:
    """Raise unless every element is finite, in every process that trains this model.

    To be called by all of them alike, and so not in validation, which the first one does alone.

    Raises:
        NonFiniteLossError: Naming ``what``.
    """
    bad = value.detach()[~torch.isfinite(value.detach())]
    if not distributed.true_in_all_processes(not len(bad)):
        raise NonFiniteLossError(
            f"{what} is {bad[0].item() if len(bad) else 'not finite in another process'}"
        )
