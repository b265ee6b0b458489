import dataclasses
import json
import math

import pytest
import torch

from latentserve_training.checkpoint import load_checkpoint, save_checkpoint
from latentserve_training.errors import CheckpointError, ConfigError, NonFiniteLossError
from latentserve_training.loops import build_model, learning_rate_factor, train, validate
from latentserve_training.models.base import OptimizerConfig
from latentserve_training.models.registry import KINDS
from latentserve_training.run_folder import RunFolder


class Stopped(Exception):
    pass


@pytest.fixture
def stop_after_epoch(monkeypatch):
    """Make training fail right after the checkpoint of an epoch, as a power cut would."""
    from latentserve_training import loops

    def arrange(epoch):
        def save_and_stop(checkpoint, path):
            original(checkpoint, path)
            if path.name == "last.pt" and checkpoint.epoch == epoch:
                raise Stopped

        monkeypatch.setattr(loops, "save_checkpoint", save_and_stop)

    original = loops.save_checkpoint
    yield arrange
    monkeypatch.setattr(loops, "save_checkpoint", original)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_resumed_run_equals_an_uninterrupted_one(
    kind, tmp_path, make_config, image_data, stop_after_epoch, monkeypatch
):
    config = make_config(kind, training={"epochs": 4})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    train(config, image_data, whole)
    stop_after_epoch(2)
    with pytest.raises(Stopped):
        train(config, image_data, parts)
    monkeypatch.undo()
    train(config, image_data, parts, resume=True)

    expected, actual = load_checkpoint(whole.last), load_checkpoint(parts.last)
    assert actual.epoch == 4
    for name, weights in expected.model.items():
        assert torch.equal(weights, actual.model[name]), name
    assert torch.equal(expected.random_state, actual.random_state)
    assert (actual.best_epoch, actual.best_loss) == (expected.best_epoch, expected.best_loss)
    assert without_seconds(actual.history) == without_seconds(expected.history)


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
    from latentserve_training import loops

    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(loops, "validate", lambda *_: {"loss": next(losses)})
    folder = RunFolder(tmp_path)
    best = train(make_config(training={"epochs": 3}), image_data, folder)
    assert (best.epoch, best.best_loss) == (2, 1.0)
    assert load_checkpoint(folder.last).epoch == 3


def test_validation_repeats_itself_and_weighs_images_equally(make_config, image_data, monkeypatch):
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


def test_divergence_is_reported_with_its_cure(tmp_path, make_config, image_data):
    config = make_config(optimizer={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(NonFiniteLossError, match=r"diverged in epoch 1: .*optimizer.learning_rate"):
        train(config, image_data, RunFolder(tmp_path))


def test_a_validation_loss_that_is_not_finite_is_divergence_too(
    tmp_path, make_config, image_data, monkeypatch
):
    from latentserve_training import loops

    losses = iter([1.0, math.nan])
    monkeypatch.setattr(loops, "validate", lambda *_: {"loss": next(losses)})
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


def test_a_run_from_before_a_key_was_there_is_resumed(tmp_path, make_config, image_data):
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


def test_a_run_with_a_key_that_is_gone_is_not_resumed(tmp_path, make_config, image_data):
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


def test_learning_rate_rises_linearly_and_falls_as_a_cosine():
    factor = learning_rate_factor(OptimizerConfig(warmup_steps=10), total_steps=110)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(10) == 1.0
    assert factor(60) == pytest.approx(0.5)
    assert factor(85) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert factor(110) == pytest.approx(0.0)


def test_warm_up_never_takes_more_than_half_of_a_short_run():
    factor = learning_rate_factor(OptimizerConfig(warmup_steps=1000), total_steps=10)
    assert factor(5) == 1.0
    assert factor(9) < 0.2
