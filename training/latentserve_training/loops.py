"""The training loop, readable top to bottom.

One generator on the CPU shuffles the images and draws all noise; its state is part of the
checkpoint, so a run that is stopped after any epoch and resumed ends with the same weights, bit for
bit, as one that was not (on a CPU, with the same number of threads).
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from latentserve_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from latentserve_training.config import RunConfig, parse_config
from latentserve_training.data import ImageData
from latentserve_training.errors import CheckpointError, ConfigError, NonFiniteLossError
from latentserve_training.models.base import (
    ImageShape,
    LatentModel,
    OptimizerConfig,
    require_finite,
)
from latentserve_training.models.registry import KINDS
from latentserve_training.run_folder import RunFolder, write_json, write_text
from latentserve_training.sampler import check_sampler
from latentserve_training.scaling import to_float


def build_model(config: RunConfig, image_shape: ImageShape) -> LatentModel:
    """A new model with weights drawn from the configuration's seed.

    Raises:
        ConfigError: If the kind cannot be built for images of this shape.
    """
    torch.manual_seed(config.seed)
    try:
        return KINDS[config.kind].build(image_shape, config.model)
    except ValueError as error:
        raise ConfigError(f"[model]: {error}") from error


def train(
    config: RunConfig, data: ImageData, folder: RunFolder, resume: bool = False
) -> Checkpoint:
    """Train, writing checkpoints, ``config.json`` and ``metrics.jsonl`` after every epoch.

    Returns:
        The checkpoint with the lowest validation loss.

    Raises:
        CheckpointError: If the folder holds a run already, or holds none to resume, or one of
            another configuration or other data.
        ConfigError: If the model or the device cannot be had.
        NonFiniteLossError: If training diverges; the last good checkpoint stays.
    """
    device = _device(config.training.device)
    torch.set_num_threads(config.training.threads)
    folder.create(resume)
    model = build_model(config, data.image_shape)
    check_sampler(config.sampler, model, len(data.train))
    if not resume:  # or the checkpoint holds what came of it
        model.prepare(data.train)
    model.to(device)
    optimizers = model.optimizers(config.optimizer)
    steps_per_epoch = math.ceil(len(data.train) / config.training.batch_size)
    total_steps = steps_per_epoch * config.training.epochs
    schedulers = {
        name: torch.optim.lr_scheduler.LambdaLR(
            optimizer, learning_rate_factor(config.optimizer, total_steps)
        )
        for name, optimizer in optimizers.items()
    }
    generator = torch.Generator().manual_seed(config.seed)
    first_epoch, best_epoch, best_loss = 0, 0, math.inf
    history: list[dict[str, Any]] = []

    if resume:
        state = load_checkpoint(folder.last)
        _require_same_run(state, config, data)
        model.load_state_dict(state.model)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state.optimizers[name])
            schedulers[name].load_state_dict(state.schedulers[name])
        generator.set_state(state.random_state)
        first_epoch, history = state.epoch, state.history
        best_epoch, best_loss = state.best_epoch, state.best_loss
    else:
        write_json(folder.config, config.as_dict())

    for epoch in range(first_epoch + 1, config.training.epochs + 1):
        started_s = time.monotonic()
        try:
            row = _train_epoch(model, optimizers, schedulers, data.train, generator, config, epoch)
            validation = validate(model, data.validation, config.seed)
            require_finite("the validation loss", torch.tensor(validation["loss"]))
        except NonFiniteLossError as error:
            kept = f"epoch {epoch - 1} is kept in {folder.last}" if epoch > 1 else "nothing kept"
            raise NonFiniteLossError(
                f"training diverged in epoch {epoch}: {error}. Lower optimizer.learning_rate "
                f"(now {config.optimizer.learning_rate:g}) or set optimizer.max_gradient_norm; "
                f"{kept}"
            ) from error
        row |= {f"validation_{name}": value for name, value in validation.items()}
        row["seconds"] = round(time.monotonic() - started_s, 3)
        history.append(row)
        # An adversarial kind has a loss for each network, and no single one.
        trained = f"loss {row['train_loss']:.5g}, " if "train_loss" in row else ""
        tqdm.write(
            f"epoch {epoch}/{config.training.epochs}: {trained}"
            f"validation {validation['loss']:.5g}, {row['seconds']:.0f} s"
        )
        improved = validation["loss"] < best_loss
        if improved:
            best_epoch, best_loss = epoch, validation["loss"]
        state = Checkpoint(
            epoch=epoch,
            config=config.as_dict(),
            image_shape=data.image_shape,
            data_sha256=data.sha256,
            model=model.state_dict(),
            optimizers={name: each.state_dict() for name, each in optimizers.items()},
            schedulers={name: each.state_dict() for name, each in schedulers.items()},
            random_state=generator.get_state(),
            best_epoch=best_epoch,
            best_loss=best_loss,
            history=history,
        )
        # Best before last: a crash between the two repeats an epoch and loses nothing.
        if improved:
            save_checkpoint(state, folder.best)
        save_checkpoint(state, folder.last)
        write_text(folder.metrics, "".join(json.dumps(entry) + "\n" for entry in history))
    return load_checkpoint(folder.best)


def validate(model: LatentModel, images: Tensor, seed: int) -> dict[str, float]:
    """The model's losses over uint8 images, in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        return model.validation_losses(images, seed)


def learning_rate_factor(config: OptimizerConfig, total_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2016, 1608.03983)."""
    warmup_steps = min(config.warmup_steps, total_steps // 2)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor


def _train_epoch(
    model: LatentModel,
    optimizers: dict[str, torch.optim.Optimizer],
    schedulers: dict[str, torch.optim.lr_scheduler.LambdaLR],
    images: Tensor,
    generator: torch.Generator,
    config: RunConfig,
    epoch: int,
) -> dict[str, Any]:
    model.train()
    device = next(model.parameters()).device
    sums: dict[str, Tensor] = {}
    progress = tqdm(
        _batches(images, config.training.batch_size, generator),
        desc=f"epoch {epoch}/{config.training.epochs}",
        total=math.ceil(len(images) / config.training.batch_size),
        unit="batch",
        leave=False,
        disable=None,  # no bar where nobody watches: in a log file it is one long line
    )
    for batch in progress:
        inputs = to_float(batch).to(device)
        losses = model.training_step(inputs, optimizers, generator, config.optimizer)
        for scheduler in schedulers.values():
            scheduler.step()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value * len(batch)
    return {"epoch": epoch} | {
        f"train_{name}": value.item() / len(images) for name, value in sums.items()
    }


def _batches(images: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    for rows in torch.split(torch.randperm(len(images), generator=generator), batch_size):
        yield images[rows]


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device is 'cuda', but torch sees no GPU; set it to 'cpu'")
    return torch.device(name)


def _require_same_run(state: Checkpoint, config: RunConfig, data: ImageData) -> None:
    before, now = _flat(_with_defaults(state.config)), _flat(config.as_dict())
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"cannot resume: {key} was {before.get(key)!r} and is now {now.get(key)!r}; "
                "repeat the old value, or start a new run with --out"
            )
    if state.data_sha256 != data.sha256:
        raise CheckpointError("cannot resume: the training images are not those of this run")


def _with_defaults(before: dict[str, Any]) -> dict[str, Any]:
    """An older run's configuration with the keys added since: their defaults change nothing."""
    try:
        return parse_config(before).as_dict()
    except ConfigError:  # a key is gone since: the comparison names it
        return before


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
