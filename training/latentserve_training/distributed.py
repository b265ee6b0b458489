"""Several processes that train one model: ``torchrun --nproc-per-node N -m latentserve_training``.

Every process holds the whole model and all images, shuffles alike, and takes its slice of each
batch, so ``training.batch_size`` is that of all processes together. Gradients are averaged before
every step, weighted with the size of the slices: the step is the one that a single process would
take (Goyal et al. 2017, 1706.02677, section 3), as long as the loss is a mean over images. A term
that looks at the batch as a whole, such as a divergence of mean activities, sees its slice alone.

Only the first process writes, prints and validates. Without torchrun there is one process, and all
of this does nothing.
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

# The others wait while the first one validates. One that has died is noticed at once all the same:
# its connections close, and torchrun ends the rest.
PROCESS_GROUP_TIMEOUT = timedelta(hours=24)
CPU = torch.device("cpu")

_share: ContextVar[float] = ContextVar("share", default=1.0)
Value = TypeVar("Value")


def join(device: str) -> None:
    """Meet the other processes that torchrun has started, if there are any.

    Args:
        device: ``training.device``: "cpu" talks through gloo, "cuda" through NCCL.

    Raises:
        ProcessGroupError: If they cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with _report_lost_processes():
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=PROCESS_GROUP_TIMEOUT)


def leave() -> bool:
    """Part from them after training, and say whether this process is the first one.

    Not to be called after an error: NCCL would wait for the processes that are let down.
    """
    first = is_first()
    if dist.is_initialized():
        dist.destroy_process_group()
    return first


def size() -> int:
    """How many processes train this model."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes, prints and validates."""
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
    """Where a process draws the noise of an epoch from, on the CPU.

    A single process has one generator for everything. Several must shuffle alike and draw apart;
    the noise of each then depends on the seed, the epoch and the process alone, so that a run can
    be resumed without the states of them all.
    """
    if size() == 1:
        return shuffling
    (state,) = np.random.SeedSequence([seed, epoch, rank()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def local_rows(rows: Tensor) -> Tensor:
    """The slice of a batch ``[n]`` for this process; the next gradients are weighted with it.

    Where there are fewer rows than processes, those left over repeat the first row with weight 0:
    all have to take part in the averaging.
    """
    own = torch.tensor_split(rows, size())[rank()]
    _share.set(len(own) / len(rows))
    return own if len(own) else rows[:1]


def local_share() -> float:
    """The share of the batch's images that :func:`local_rows` gave to this process, in [0, 1]."""
    return _share.get()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by the mean over the whole batch, with one exchange for all of them.

    Every process must come here for the same parameters, in the same order.
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
    """Means over the whole batch from those over each process's slice, for decisions on a step."""
    return sum_over_processes([value * local_share() for value in values])


def true_in_all_processes(condition: bool) -> bool:
    """Whether it holds in every process; the same answer in all of them."""
    return sum_over_processes([0.0 if condition else 1.0]) == [0.0]


def broadcast_from_first(value: Value | None) -> Value:
    """What the first process has; the others give None, and wait until it gets here."""
    values = [value]
    if size() > 1:
        with _report_lost_processes():
            dist.broadcast_object_list(values, src=0, device=CPU)
    (chosen,) = values
    assert chosen is not None  # noqa: S101  the first process always has a value
    return chosen


def copy_buffers_from_first(model: nn.Module) -> None:
    """Make buffers equal where each process has filled them from its own slice."""
    if size() == 1:
        return
    with _report_lost_processes():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def wait_for_all() -> None:
    """Return when every process has got here."""
    sum_over_processes([0.0])


@contextmanager
def _report_lost_processes() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise ProcessGroupError(
            f"process {os.environ.get('RANK', '?')} of {os.environ.get('WORLD_SIZE', '?')} lost "
            f"the others ({first_line}); the error of the one that failed first is in the output"
        ) from error
