"""Data-parallel training of one model in several processes started by torchrun.

``torchrun --nproc-per-node N -m latentserve_training`` starts N processes. Every process holds the
whole model and all images, shuffles in the same order and takes its slice of each batch, so
``training.batch_size`` counts the images of all processes. Gradients are averaged before every
step, weighted by the size of the slices. The step is therefore the one of a single process (Goyal
et al. 2017, 1706.02677, section 3), provided that the loss is a mean over images. A term that is
computed from the batch as a whole, such as a divergence of mean activities, is computed from the
slice of each process alone.

Only the first process writes, prints and validates. Without torchrun there is one process, and
these functions do nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from latentserve_training.errors import ConfigError, ProcessGroupError

# The other processes wait while the first one validates. The end of a process is still noticed at
# once: its connections close, and torchrun ends the other processes.
PROCESS_GROUP_TIMEOUT = timedelta(hours=24)
CPU = torch.device("cpu")

_share: ContextVar[float] = ContextVar("share", default=1.0)
Value = TypeVar("Value")


def join(device: str) -> None:
    """Join the process group if torchrun has started several processes.

    Args:
        device: ``training.device``: "cpu" communicates by gloo, "cuda" by NCCL.

    Raises:
        ProcessGroupError: If the other processes cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with _report_lost_processes():
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PROCESS_GROUP_TIMEOUT)


def leave() -> bool:
    """Leave the process group after training; return whether this process is the first one.

    Do not call it after an error: NCCL would wait for the other processes.
    """
    first = is_first()
    if dist.is_initialized():
        dist.destroy_process_group()
    return first


def size() -> int:
    """The number of processes that train this model."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes, prints and validates."""
    return rank() == 0


def choose_device(name: str) -> torch.device:
    """The device of this process: with CUDA, GPU number LOCAL_RANK of its machine.

    Raises:
        ConfigError: If torch sees no such GPU.
    """
    if name != "cuda":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ConfigError("training.device is 'cuda', but torch sees no GPU; set it to 'cpu'")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(
            f"process {index} of this machine has no GPU: torch sees {count}; start torchrun with "
            f"--nproc-per-node {count} at most"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def noise_generator(seed: int, epoch: int, shuffling: torch.Generator) -> torch.Generator:
    """The generator of the noise of an epoch, on the CPU.

    A single process uses one generator for everything. Several processes must shuffle in the same
    order and sample different noise. The noise of each then depends on the seed, the epoch and the
    process alone, so that a run can be resumed without the states of all generators.
    """
    if size() == 1:
        return shuffling
    (state,) = np.random.SeedSequence([seed, epoch, rank()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def local_rows(rows: Tensor) -> Tensor:
    """The slice of a batch ``[n]`` for this process; its size is the weight of the next gradients.

    With fewer rows than processes, the remaining processes take the first row with weight 0: all
    processes have to take part in the averaging.
    """
    own = torch.tensor_split(rows, size())[rank()]
    _share.set(len(own) / len(rows))
    return own if len(own) else rows[:1]


def local_share() -> float:
    """The share of the images of a batch in the slice of this process, in [0, 1]."""
    return _share.get()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the mean over the whole batch, in one all-reduce.

    Every process must call this with the same parameters in the same order.
    """
    if size() == 1:
        return
    parameters = list(parameters)
    flat = torch.cat(
        [
            (torch.zeros_like(each) if each.grad is None else each.grad).flatten()
            for each in parameters
        ]
    )
    flat *= local_share()
    with _report_lost_processes():
        dist.all_reduce(flat)
    averages = torch.split(flat, [each.numel() for each in parameters])
    for parameter, average in zip(parameters, averages, strict=True):
        if parameter.grad is not None:
            parameter.grad.copy_(average.view_as(parameter))


def sum_over_processes(values: list[float]) -> list[float]:
    """Element-wise sums, the same in every process."""
    if size() == 1:
        return values
    sums = torch.tensor(values, dtype=torch.float64)
    with _report_lost_processes():
        dist.all_reduce(sums)
    return sums.tolist()


def means_over_batch(values: list[float]) -> list[float]:
    """Means over the whole batch from the means over the slices, for decisions about a step."""
    return sum_over_processes([value * local_share() for value in values])


def true_in_all_processes(condition: bool) -> bool:
    """Whether the condition holds in every process; all processes get the same result."""
    return sum_over_processes([0.0 if condition else 1.0]) == [0.0]


def broadcast_from_first(value: Value | None) -> Value:
    """Return the value of the first process; the others pass None and wait for it."""
    values = [value]
    if size() > 1:
        with _report_lost_processes():
            dist.broadcast_object_list(values, src=0, device=CPU)
    (chosen,) = values
    assert chosen is not None  # noqa: S101  the first process always has a value
    return chosen


def copy_buffers_from_first(model: nn.Module) -> None:
    """Copy the buffers of the first process; each process has filled its own from its slice."""
    if size() == 1:
        return
    with _report_lost_processes():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def wait_for_all() -> None:
    """Return when every process has called this."""
    sum_over_processes([0.0])


@contextmanager
def _report_lost_processes() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise ProcessGroupError(
            f"process {os.environ.get('RANK', '?')} of {os.environ.get('WORLD_SIZE', '?')} lost "
            f"its connection to the others ({first_line}); the output contains the error of the "
            "process that failed first"
        ) from error
