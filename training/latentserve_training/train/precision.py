"""Optional bfloat16 arithmetic and compilation of the networks in training.

Both are applied in place to the outermost submodules with a ``forward`` (encoder, decoder,
discriminator), so the names in the checkpoint do not change and losses are not affected. The
outputs of a network are converted to float32, so losses, log-likelihoods and latents are computed
in float32. bfloat16 is used only in training steps: validation selects the model to export, which
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
        ConfigError: If the model has no network to apply them to, or no compiler is found.
    """
    if config.precision == "float32" and not config.compile:
        return
    found = networks(model)
    if not found:
        raise ConfigError(
            "this kind of model has no separate network: set training.precision = 'float32' and "
            "training.compile = false, which is as fast"
        )
    if config.precision == "bfloat16":
        for network in found:
            run_in_bfloat16(network, device.type)
    if config.compile:
        _require_compiler(device)
        for network in found:
            network.compile()


def networks(model: nn.Module) -> list[nn.Module]:
    """The outermost submodules that define ``forward``."""
    found = []
    for child in model.children():
        if type(child).forward is not nn.Module.forward:
            found.append(child)
        else:  # a container, such as ModuleList
            found += networks(child)
    return found


def run_in_bfloat16(network: nn.Module, device_type: str) -> None:
    """Make the network compute in bfloat16 in training mode; its outputs are float32.

    Weights stay float32, and autocast selects the operations that are safe in bfloat16
    (Micikevicius et al. 2017, 1710.03740). Its range is that of float32, so losses need no scaling.
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
    """Replace errors about limits of torch.compile by errors that name the setting.

    Raises:
        ConfigError: If the loss needs gradients of gradients.
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
    """Compile a small function: no other check covers all parts of a compiler."""
    probe = torch.compile(_probe)
    try:
        probe(torch.zeros(8, device=device))
    except Exception as error:  # its class depends on the back end
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"training.compile found no working compiler ({first_line}); install g++ and "
            "Python's headers (and, for a GPU, triton), or set training.compile = false"
        ) from error


def _probe(values: Tensor) -> Tensor:
    return values.sin() + 1.0
