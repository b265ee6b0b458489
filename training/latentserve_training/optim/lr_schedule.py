"""Learning rate schedule: linear warm-up, then half a cosine down to zero."""

import math
from collections.abc import Callable, Mapping

import torch

from latentserve_training.optim.optimizer import OptimizerConfig


class LearningRateSchedule:
    """Sets the learning rates of all optimisers, each relative to its own peak.

    The rate depends on the step number alone, so the schedule has no state to save, and a skipped
    step counts like any other.
    """

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        config: OptimizerConfig,
        total_steps: int,
    ) -> None:
        self._factor = learning_rate_factor(config, total_steps)
        # Peaks are read from new optimisers: a checkpoint holds the rates of its last step.
        self._groups = [
            (optimizer, index, group["lr"])
            for optimizer in optimizers.values()
            for index, group in enumerate(optimizer.param_groups)
        ]

    def set_rates(self, step: int) -> None:
        """Set the rates for a step, counted from 0 over the whole run."""
        factor = self._factor(step)
        for optimizer, index, peak in self._groups:
            optimizer.param_groups[index]["lr"] = peak * factor


def learning_rate_factor(config: OptimizerConfig, total_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2016, 1608.03983)."""
    warmup_steps = min(config.warmup_steps, total_steps // 2)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor
