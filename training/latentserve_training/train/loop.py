"""Training loop: epochs, validation, checkpoints and resumption.

One generator on the CPU shuffles the images and generates all noise. Its state is part of the
checkpoint, so a run that is stopped after any epoch and resumed ends with the same weights, bit for
bit, as an uninterrupted run (on a CPU, with the same number of threads).
"""

import json
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentserve_training import distributed
from latentserve_training.config import RunConfig, parse_config
from latentserve_training.data import ImageData
from latentserve_training.errors import CheckpointError, ConfigError, NonFiniteLossError
from latentserve_training.models.base import LatentModel
from latentserve_training.models.registry import KINDS
from latentserve_training.optim.lr_schedule import LearningRateSchedule
from latentserve_training.optim.optimizer import require_finite
from latentserve_training.pixels import ImageShape, to_float
from latentserve_training.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from latentserve_training.train.early_stopping import StepGuard, has_stalled
from latentserve_training.train.fit_prior import check_sampler
from latentserve_training.train.precision import explain_compiler_limits, prepare_networks
from latentserve_training.train.progress import Progress
from latentserve_training.train.run_folder import RunFolder, write_json, write_text

# Settings that a resumed run may change: they affect when a run ends, not its steps.
CHANGEABLE = frozenset({"training.max_skipped_steps", "training.patience_epochs"})


def build_model(config: RunConfig, image_shape: ImageShape) -> LatentModel:
    """A new model, whose initial weights depend on the seed of the configuration.

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
        CheckpointError: If the folder already holds a run, or holds no run to resume, or a run
            with another configuration or other data.
        ConfigError: If the model, the device, the precision or a compiler is not available.
        NonFiniteLossError: If training diverges; the last good checkpoint is kept.
        ProcessGroupError: If another process that trains the same model has failed.
    """
    device = distributed.choose_device(config.training.device)
    torch.set_num_threads(config.training.threads)
    if distributed.is_first():
        folder.create(resume)
    model = build_model(config, data.image_shape)
    check_sampler(config.sampler, model, len(data.train))
    if not resume:  # a checkpoint already holds the result
        model.initialise_from_data(data.train)
    model.to(device)
    prepare_networks(model, config.training, device)
    run = _Run(config, data, model, model.optimizers(config.optimizer))
    steps_per_epoch = math.ceil(len(data.train) / config.training.batch_size)
    epochs, patience = config.training.epochs, config.training.patience_epochs
    # Created before a checkpoint is loaded, because that holds the rates of its last step.
    schedule = LearningRateSchedule(run.optimizers, config.optimizer, steps_per_epoch * epochs)
    if resume:
        run.restore(load_checkpoint(folder.last))
    elif distributed.is_first():
        write_json(folder.config, config.as_dict())
    guard = StepGuard(config.training.max_skipped_steps, run.skipped_steps)
    progress = Progress(run.epoch + 1, epochs, steps_per_epoch, quiet=not distributed.is_first())

    while run.epoch < epochs and not has_stalled(run.epoch, run.best_epoch, patience):
        started_s = time.monotonic()
        try:
            row = _train_epoch(run, schedule, guard, progress)
            row |= _validate_once(run)
        except NonFiniteLossError as error:
            kept = f"epoch {run.epoch} is kept in {folder.last}" if run.epoch else "nothing is kept"
            raise NonFiniteLossError(
                f"training diverged in epoch {run.epoch + 1}: {error}. Lower "
                f"optimizer.learning_rate (now {config.optimizer.learning_rate:g}) or set "
                f"optimizer.max_gradient_norm; {kept}"
            ) from error
        row["seconds"] = round(time.monotonic() - started_s, 3)
        run.add(row)
        progress.finish_epoch(row)
        if distributed.is_first():
            _write_epoch(run.checkpoint(), folder)
    if run.epoch < epochs:
        progress.print_line(
            f"stopped early, after epoch {run.epoch}: the validation loss is not better than in "
            f"epoch {run.best_epoch} (training.patience_epochs = {patience})"
        )
    distributed.wait_for_all()  # until the first process has written the last epoch
    return load_checkpoint(folder.best)


def validate(model: LatentModel, images: Tensor, seed: int) -> dict[str, float]:
    """The model's losses over uint8 images, in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        return model.validation_losses(images, seed)


@dataclass
class _Run:
    """The state of a run between two epochs, as stored in its checkpoint."""

    config: RunConfig
    data: ImageData
    model: LatentModel
    optimizers: dict[str, torch.optim.Optimizer]
    epoch: int = 0  # completed epochs
    best_epoch: int = 0
    best_loss: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.config.seed)

    @property
    def skipped_steps(self) -> int:
        return sum(row.get("skipped_steps", 0) for row in self.history)

    def restore(self, state: Checkpoint) -> None:
        _require_same_run(state, self.config, self.data)
        self.model.load_state_dict(state.model)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state.optimizers[name])
        self.generator.set_state(state.random_state)
        self.epoch, self.history = state.epoch, state.history
        self.best_epoch, self.best_loss = state.best_epoch, state.best_loss

    def add(self, row: dict[str, Any]) -> None:
        self.epoch = row["epoch"]
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_epoch, self.best_loss = self.epoch, row["validation_loss"]
        training = self.config.training
        if self.epoch < training.epochs:
            stalled = has_stalled(self.epoch, self.best_epoch, training.patience_epochs)
            row |= {"stopped_early": True} if stalled else {}

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            epoch=self.epoch,
            config=self.config.as_dict(),
            image_shape=self.data.image_shape,
            data_sha256=self.data.sha256,
            model=self.model.state_dict(),
            optimizers={name: each.state_dict() for name, each in self.optimizers.items()},
            random_state=self.generator.get_state(),
            best_epoch=self.best_epoch,
            best_loss=self.best_loss,
            history=self.history,
            processes=distributed.size(),
        )


def _train_epoch(
    run: _Run, schedule: LearningRateSchedule, guard: StepGuard, progress: Progress
) -> dict[str, Any]:
    """Train for one epoch; return the means of the losses over the images of all finite steps."""
    model, images, config = run.model.train(), run.data.train, run.config
    device = next(model.parameters()).device
    noise = distributed.noise_generator(config.seed, run.epoch + 1, run.generator)
    order = torch.randperm(len(images), generator=run.generator)
    batches = torch.split(order, config.training.batch_size)
    skipped_before, used_images = guard.skipped, 0
    sums: dict[str, Tensor] = {}
    for index, rows in enumerate(progress.batches(batches, run.epoch + 1)):
        step = run.epoch * len(batches) + index
        schedule.set_rates(step)
        inputs = to_float(images[distributed.local_rows(rows)]).to(device)
        try:
            with explain_compiler_limits():
                losses = model.training_step(inputs, run.optimizers, noise, config.optimizer)
        except NonFiniteLossError as error:
            guard.skip(step + 1, error)
            continue
        used_images += len(rows)
        weight = distributed.local_share() * len(rows)  # number of images of these losses
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value * weight
        progress.show(losses, guard.skipped)
    if not used_images:
        raise NonFiniteLossError(f"none of its {len(batches)} steps was finite")
    totals = distributed.sum_over_processes([value.item() for value in sums.values()])
    means = [total / used_images for total in totals]
    return {
        "epoch": run.epoch + 1,
        **{f"train_{name}": mean for name, mean in zip(sums, means, strict=True)},
        "skipped_steps": guard.skipped - skipped_before,
    }


def _validate_once(run: _Run) -> dict[str, float]:
    """The validation losses, which the first process computes for all processes."""
    distributed.copy_buffers_from_first(run.model)
    computed: dict[str, float] | None = None
    if distributed.is_first():
        computed = validate(run.model, run.data.validation, run.config.seed)
    losses = distributed.broadcast_from_first(computed)
    require_finite("the validation loss", torch.tensor(losses["loss"]))
    return {f"validation_{name}": value for name, value in losses.items()}


def _write_epoch(state: Checkpoint, folder: RunFolder) -> None:
    # Best before last: after a crash between the two, the epoch is repeated and nothing is lost.
    if state.best_epoch == state.epoch:
        save_checkpoint(state, folder.best)
    save_checkpoint(state, folder.last)
    write_text(folder.metrics, "".join(json.dumps(entry) + "\n" for entry in state.history))


def _require_same_run(state: Checkpoint, config: RunConfig, data: ImageData) -> None:
    before, now = _flat(_with_defaults(state.config)), _flat(config.as_dict())
    for key in sorted((before.keys() | now.keys()) - CHANGEABLE):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"cannot resume: {key} was {before.get(key)!r} and is now {now.get(key)!r}; "
                "use the old value, or start a new run with --out"
            )
    if state.processes != distributed.size():
        raise CheckpointError(
            f"cannot resume: {state.processes} processes trained this run, but "
            f"{distributed.size()} are running; start torchrun with --nproc-per-node "
            f"{state.processes}"
            if state.processes > 1
            else "cannot resume: a single process trained this run; start it without torchrun"
        )
    if state.data_sha256 != data.sha256:
        raise CheckpointError("cannot resume: the training images are not those of this run")


def _with_defaults(before: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration, completed by the defaults of keys that it does not have."""
    try:
        return parse_config(before).as_dict()
    except ConfigError:  # it has a key that no longer exists: the comparison names it
        return before


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
