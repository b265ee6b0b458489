import shlex

import pytest

from latentserve_training.config import load_config
from latentserve_training.report.finish_run import training_command
from latentserve_training.train.reproduction import PACKAGED_DATA, command_of, flat_values

SMALL = {"name": "small", "kind": "vae", "seed": 0, "model": {"latent_dim": 4, "channels": [2, 3]}}
LARGE = {"name": "large", "kind": "vae", "seed": 0, "model": {"latent_dim": 64, "channels": [8]}}
OTHER = {"name": "other", "kind": "gan", "seed": 0, "model": {"latent_dim": 4}}
PRESETS = {"small": SMALL, "large": LARGE, "other": OTHER}


def test_a_preset_alone():
    assert command_of("train", SMALL, PRESETS, "MNIST") == (
        "latentserve-training train --config small --data DIR"
    )


def test_changes_are_set_on_the_nearest_preset_of_the_kind():
    config = LARGE | {"name": "mine", "seed": 2, "model": {"latent_dim": 64, "channels": [8, 16]}}
    assert command_of("train", config, PRESETS, "MNIST") == (
        "latentserve-training train --config large --data DIR --set name=mine --set seed=2 "
        "--set 'model.channels=[8, 16]'"
    )


def test_digits_of_the_package_need_no_folder():
    assert "--data" not in command_of("train", SMALL, PRESETS, PACKAGED_DATA)


def test_without_a_preset_of_the_kind_the_command_names_own_toml():
    config = {"name": "x", "kind": "flow", "seed": 0}
    assert "--config own.toml" in command_of("train", config, PRESETS, "MNIST")


def test_nested_tables_become_dotted_keys():
    assert flat_values({"a": 1, "b": {"c": [2], "d": {"e": "f"}}}) == {
        "a": 1,
        "b.c": [2],
        "b.d.e": "f",
    }


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=4", "name=mine", "model.channels=[4,8]", "training.epochs=3"],
        ["optimizer.learning_rate=5e-4", "data.max_train_images=100"],
    ],
)
def test_the_command_reproduces_the_configuration(overrides):
    config = load_config("mnist-vae", overrides)
    words = shlex.split(training_command(config, "MNIST"))
    assert words[:2] == ["latentserve-training", "train"]
    options = list(zip(words[2::2], words[3::2], strict=True))
    settings = [value for option, value in options if option == "--set"]
    assert load_config(dict(options)["--config"], settings) == config
