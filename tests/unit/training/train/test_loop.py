import dataclasses
import itertools
import json
import math

import pytest
import torch

from latentserve_training.errors import CheckpointError, ConfigError, NonFiniteLossError
from latentserve_training.models.autoencoder import Autoencoder
from latentserve_training.models.registry import KINDS
from latentserve_training.models.vae import VAE
from latentserve_training.train.checkpoint import load_checkpoint, save_checkpoint
from latentserve_training.train.loop import build_model, train, validate
from latentserve_training.train.run_folder import RunFolder


class Stopped(Exception):
    pass


@pytest.fixture
def stop_after_epoch():
    """Make training fail right after the checkpoint of an epoch, like a power failure."""
    from latentserve_training.train import loop

    def arrange(epoch, patches):
        def save_and_stop(checkpoint, path):
            original(checkpoint, path)
            if path.name == "last.pt" and checkpoint.epoch == epoch:
                raise Stopped

        patches.setattr(loop, "save_checkpoint", save_and_stop)

    original = loop.save_checkpoint
    return arrange


MID_COURSE = {  # settings that change in the course of a training, of which a part is over
    "optimal": {"sigma_mode": "optimal", "samples": 2, "kl_warmup_steps": 12},
    "iwae": {
        "likelihood": "bernoulli",
        "binarisation": "static",
        "objective": "iwae",
        "samples": 2,
        "one_sample_steps": 8,
        "kl_warmup_steps": 12,
    },
}


@pytest.mark.parametrize(
    ("kind", "model"),
    [(kind, {}) for kind in sorted(KINDS)] + [("vae", model) for model in MID_COURSE.values()],
    ids=[*sorted(KINDS), *(f"vae-{name}" for name in MID_COURSE)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    kind, model, tmp_path, make_config, image_data, stop_after_epoch, monkeypatch
):
    config = make_config(kind, model=model, training={"epochs": 4})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train(config, image_data, whole)
    with monkeypatch.context() as patches:
        stop_after_epoch(2, patches)
        with pytest.raises(Stopped):
            train(config, image_data, parts)
    train(config, image_data, parts, resume=True)

    expected, actual = load_checkpoint(whole.last), load_checkpoint(parts.last)
    assert actual.epoch == 4
    for name, weights in expected.model.items():
        assert torch.equal(weights, actual.model[name]), name
    assert torch.equal(expected.random_state, actual.random_state)
    assert (actual.best_epoch, actual.best_loss) == (expected.best_epoch, expected.best_loss)
    assert without_seconds(actual.history) == without_seconds(expected.history)


def test_a_run_interrupted_in_the_middle_of_an_epoch_loses_no_more_than_that(
    tmp_path, make_config, image_data, monkeypatch
):
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    config = make_config("vae", training={"epochs": 3})
    train(config, image_data, whole)
    steps = itertools.count(1)

    def step(*arguments):
        if next(steps) == 8:  # the third of the second epoch
            raise KeyboardInterrupt
        return original(*arguments)

    original = VAE.training_step
    with monkeypatch.context() as patches:
        patches.setattr(VAE, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, image_data, parts)
    assert load_checkpoint(parts.last).epoch == 1
    train(config, image_data, parts, resume=True)
    expected, actual = load_checkpoint(whole.last), load_checkpoint(parts.last)
    assert all(torch.equal(expected.model[name], actual.model[name]) for name in expected.model)


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_resumed_run_remembers_skipped_steps_and_its_patience(
    stopped, tmp_path, make_config, image_data, stop_after_epoch, monkeypatch
):
    bad_loss_in_step(3, monkeypatch)
    settings = {"epochs": 9, "patience_epochs": 2, "max_skipped_steps": 1}
    config = make_config(training=settings, optimizer={"learning_rate": 1e-9})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    rising_validation_loss(monkeypatch)
    train(config, image_data, whole)

    bad_loss_in_step(3, monkeypatch)
    rising_validation_loss(monkeypatch)
    with monkeypatch.context() as patches:
        stop_after_epoch(stopped, patches)
        with pytest.raises(Stopped):
            train(config, image_data, parts)
    train(config, image_data, parts, resume=True)

    expected, actual = load_checkpoint(whole.last), load_checkpoint(parts.last)
    assert (actual.epoch, actual.best_epoch) == (3, 1)
    for name, weights in expected.model.items():
        assert torch.equal(weights, actual.model[name]), name
    assert without_seconds(actual.history) == without_seconds(expected.history)
    assert [row["skipped_steps"] for row in actual.history] == [1, 0, 0]
    assert [row.get("stopped_early") for row in actual.history] == [None, None, True]


def bad_loss_in_step(bad_step, monkeypatch):
    """Make the loss of one training step, counted from 1, NaN by one of its terms."""
    steps = []

    def losses(self, images, generator):
        given = original(self, images, generator)
        steps.extend([1] * self.training)
        if self.training and len(steps) == bad_step:
            return given | {"loss": given["loss"] * math.nan, "squared_error": torch.tensor(1e39)}
        return given

    original = bad_loss_in_step.original
    monkeypatch.setattr(Autoencoder, "losses", losses)


bad_loss_in_step.original = Autoencoder.losses


def rising_validation_loss(monkeypatch):
    from latentserve_training.train import loop

    losses = itertools.count(1.0)
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})


def test_a_step_that_is_not_finite_changes_nothing_and_the_next_ones_go_on(
    tmp_path, make_config, image_data, monkeypatch, capsys
):
    bad_loss_in_step(2, monkeypatch)
    folder = RunFolder(tmp_path)
    train(make_config(training={"epochs": 1}), image_data, folder)
    (row,) = load_checkpoint(folder.last).history
    assert row["skipped_steps"] == 1
    assert 0 < row["train_loss"] < 1e3  # a mean over the good steps
    assert all(value.isfinite().all() for value in load_checkpoint(folder.last).model.values())
    assert "1 step skipped" in capsys.readouterr().out


def test_too_many_skipped_steps_end_training_and_name_step_term_and_correction(
    tmp_path, make_config, image_data, monkeypatch
):
    bad_loss_in_step(8, monkeypatch)
    config = make_config(training={"epochs": 3, "max_skipped_steps": 0})
    folder = RunFolder(tmp_path)
    message = (
        r"diverged in epoch 2: the loss is nan \(squared_error inf\), in step 8 "
        r"\(training.max_skipped_steps = 0\). Lower optimizer.learning_rate .* epoch 1 is kept"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        train(config, image_data, folder)
    assert load_checkpoint(folder.last).epoch == 1


def test_an_epoch_without_a_finite_step_is_divergence(
    tmp_path, make_config, image_data, monkeypatch
):
    def losses(self, images, generator):
        return {"loss": torch.tensor(math.nan, requires_grad=True)}

    monkeypatch.setattr(Autoencoder, "losses", losses)
    with pytest.raises(NonFiniteLossError, match="none of its 5 steps was finite"):
        train(make_config(), image_data, RunFolder(tmp_path))


def test_training_stops_when_validation_gets_no_better(
    tmp_path, make_config, image_data, monkeypatch, capsys
):
    from latentserve_training.train import loop

    losses = iter([3.0, 2.0, 2.5, 2.0, 2.1])
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})
    folder = RunFolder(tmp_path)
    config = make_config(training={"epochs": 8, "patience_epochs": 3})
    assert train(config, image_data, folder).epoch == 2
    assert "stopped early, after epoch 5: " in capsys.readouterr().out
    # Resumed, it is still over; with more patience, it goes on.
    assert train(config, image_data, folder, resume=True).epoch == 2
    losses = iter([1.0, 1.1, 1.2])
    patient = make_config(training={"epochs": 8, "patience_epochs": 4})
    assert train(patient, image_data, folder, resume=True).epoch == 6
    assert load_checkpoint(folder.last).epoch == 8


def test_a_run_without_a_newer_setting_is_resumed_with_the_default(
    tmp_path, make_config, image_data, stop_after_epoch, monkeypatch
):
    folder, config = RunFolder(tmp_path), make_config()
    with monkeypatch.context() as patches:
        stop_after_epoch(1, patches)
        with pytest.raises(Stopped):
            train(config, image_data, folder)
    content = torch.load(folder.last)
    for added in ("precision", "compile", "max_skipped_steps", "patience_epochs"):
        del content["config"]["training"][added]
    del content["processes"]
    torch.save(content | {"schedulers": {}}, folder.last)
    train(config, image_data, folder, resume=True)
    assert load_checkpoint(folder.last).epoch == 2


def without_seconds(history):
    return [{key: row[key] for key in row if key != "seconds"} for row in history]


def test_the_same_seed_gives_the_same_weights(tmp_path, make_config, image_data):
    first = train(make_config("vae"), image_data, RunFolder(tmp_path / "1"))
    second = train(make_config("vae"), image_data, RunFolder(tmp_path / "2"))
    other = dataclasses.replace(make_config("vae"), seed=4)
    third = train(other, image_data, RunFolder(tmp_path / "3"))
    name = "decoder.expand.weight"
    assert torch.equal(first.model[name], second.model[name])
    assert not torch.equal(first.model[name], third.model[name])


def test_training_lowers_the_loss_and_logs_every_epoch(tmp_path, make_config, image_data):
    folder = RunFolder(tmp_path)
    train(make_config(training={"epochs": 6}), image_data, folder)
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert json.loads(folder.config.read_text())["training"]["epochs"] == 6


def test_the_best_epoch_is_kept_not_the_last(tmp_path, make_config, image_data, monkeypatch):
    from latentserve_training.train import loop

    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})
    folder = RunFolder(tmp_path)
    best = train(make_config(training={"epochs": 3}), image_data, folder)
    assert (best.epoch, best.best_loss) == (2, 1.0)
    assert load_checkpoint(folder.last).epoch == 3


def test_validation_is_reproducible_and_weights_images_equally(
    make_config, image_data, monkeypatch
):
    from latentserve_training.models import base

    model = build_model(make_config("vae"), image_data.image_shape)
    once = validate(model, image_data.validation, seed=1)
    assert validate(model, image_data.validation, seed=1) == once
    assert validate(model, image_data.validation, seed=2) != once
    autoencoder = build_model(make_config(), image_data.image_shape)
    whole = validate(autoencoder, image_data.validation, seed=1)
    monkeypatch.setattr(base, "VALIDATION_BATCH", 7)
    uneven = validate(autoencoder, image_data.validation, seed=1)
    assert uneven["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_divergence_is_reported_with_the_correction(tmp_path, make_config, image_data):
    config = make_config(optimizer={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(NonFiniteLossError, match=r"diverged in epoch 1: .*optimizer.learning_rate"):
        train(config, image_data, RunFolder(tmp_path))


def test_a_validation_loss_that_is_not_finite_is_divergence_too(
    tmp_path, make_config, image_data, monkeypatch
):
    from latentserve_training.train import loop

    losses = iter([1.0, math.nan])
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 2: the validation loss is nan.*epoch 1 is"
    ):
        train(make_config(), image_data, RunFolder(tmp_path))
    assert load_checkpoint(RunFolder(tmp_path).last).epoch == 1


def test_a_run_is_not_overwritten(tmp_path, make_config, image_data):
    train(make_config(), image_data, RunFolder(tmp_path))
    with pytest.raises(CheckpointError, match="already holds a run; add --resume"):
        train(make_config(), image_data, RunFolder(tmp_path))


def test_there_must_be_a_run_to_resume(tmp_path, make_config, image_data):
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(make_config(), image_data, RunFolder(tmp_path), resume=True)


def test_only_the_same_configuration_is_resumed(tmp_path, make_config, image_data):
    train(make_config(), image_data, RunFolder(tmp_path))
    changed = make_config(training={"batch_size": 16})
    with pytest.raises(CheckpointError, match=r"training\.batch_size was 32 and is now 16"):
        train(changed, image_data, RunFolder(tmp_path), resume=True)


def test_a_run_without_a_newer_key_is_resumed(tmp_path, make_config, image_data):
    folder = RunFolder(tmp_path)
    best = train(make_config(), image_data, folder)
    state = load_checkpoint(folder.last)
    older = {table: values for table, values in state.config.items() if table != "sampler"}
    save_checkpoint(dataclasses.replace(state, config=older), folder.last)
    again = train(make_config(), image_data, folder, resume=True)
    assert again.best_epoch == best.best_epoch
    changed = make_config(sampler={"components": 2})
    with pytest.raises(CheckpointError, match=r"sampler\.components was 0 and is now 2"):
        train(changed, image_data, folder, resume=True)


def test_a_run_with_a_removed_key_is_not_resumed(tmp_path, make_config, image_data):
    folder = RunFolder(tmp_path)
    train(make_config(), image_data, folder)
    state = load_checkpoint(folder.last)
    save_checkpoint(
        dataclasses.replace(state, config=state.config | {"flux": {"capacity": 1.21}}), folder.last
    )
    with pytest.raises(CheckpointError, match=r"cannot resume: flux\.capacity was 1\.21"):
        train(make_config(), image_data, folder, resume=True)


def test_only_the_same_images_are_resumed(tmp_path, make_config, image_data):
    train(make_config(), image_data, RunFolder(tmp_path))
    others = dataclasses.replace(image_data, sha256="1" * 64)
    with pytest.raises(CheckpointError, match="not those of this run"):
        train(make_config(), others, RunFolder(tmp_path), resume=True)


def test_images_that_do_not_fit_the_model_are_refused(make_config):
    with pytest.raises(ConfigError, match="cannot be halved 2 times"):
        build_model(make_config(), (1, 13, 12))


def test_a_missing_gpu_is_named(tmp_path, make_config, image_data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        train(make_config(training={"device": "cuda"}), image_data, RunFolder(tmp_path))
