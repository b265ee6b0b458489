"""Faster arithmetic for the networks: bfloat16 and compiled kernels, where a run asks for them.

Both work on the outermost submodules that are called as functions (encoder, decoder,
discriminator), in place: the names in the checkpoint stay, and the losses stay outside. What
leaves a network is float32 again, so losses, log-likelihoods and latents are computed in float32.
bfloat16 is for training steps alone: validation chooses the model that is exported, and that one
runs in float32.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentserve_training.config import LoopConfig
from latentserve_training.errors import ConfigError


def prepare_networks(model: nn.Module, config: LoopConfig, device: torch.device) -> None:
    """Apply ``precision`` and ``compile`` to the networks of a model that is on its device.

    Raises:
        ConfigError: If the model has no network to apply them to, or there is no compiler.
    """
    if config.precision == "float32" and not config.compile:
        return
    found = networks(model)
    if not found:
        raise ConfigError(
            "this kind of model is computed without a network of its own: set "
            "training.precision = 'float32' and training.compile = false, which is as fast"
        )
    if config.precision == "bfloat16":
        for network in found:
            run_in_bfloat16(network, device.type)
    if config.compile:
        _require_compiler(device)
        for network in found:
            network.compile()


def networks(model: nn.Module) -> list[nn.Module]:
    """The outermost submodules that have a ``forward`` of their own."""
    found = []
    for child in model.children():
        if type(child).forward is not nn.Module.forward:
            found.append(child)
        else:  # a mere holder, such as ModuleList
            found += networks(child)
    return found


def run_in_bfloat16(network: nn.Module, device_type: str) -> None:
    """Let the network compute in bfloat16 while it is trained; its outputs are float32.

    Weights stay float32, and torch chooses what is safe in bfloat16 (Micikevicius et al. 2017,
    1710.03740); its range is that of float32, so no loss has to be scaled.
    """
    forward: Callable[..., Any] = network.forward

    @functools.wraps(forward)
    def mixed(*inputs: Any) -> Any:
        if not network.training:
            return forward(*inputs)
        with torch.autocast(device_type, torch.bfloat16):
            outputs = forward(*inputs)
        if isinstance(outputs, Tensor):
            return outputs.float()
        return type(outputs)(each.float() for each in outputs)

    network.forward = mixed


@contextmanager
def explain_compiler_limits() -> Iterator[None]:
    """Say what to do where a compiled network meets what torch.compile cannot do.

    Raises:
        ConfigError: In place of torch's error about gradients of gradients.
    """
    try:
        yield
    except RuntimeError as error:
        if "double backward" not in str(error):
            raise
        raise ConfigError(
            "this model's loss contains a gradient, and torch.compile cannot differentiate that; "
            "set training.compile = false"
        ) from error


def _require_compiler(device: torch.device) -> None:
    """Compile something small: the only check that knows all that can be missing."""
    probe = torch.compile(_probe)
    try:
        probe(torch.zeros(8, device=device))
    except Exception as error:  # of a class that differs from back end to back end
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"training.compile found no working compiler ({first_line}); install g++ and "
            "Python's headers (and, for a GPU, triton), or set training.compile = false"
        ) from error


def _probe(values: Tensor) -> Tensor:
    return values.sin() + 1.0
