"""Typed configuration of a run, read from TOML presets and overrides.

A preset has a few top-level keys (name, kind, seed) and one table per concern. Every field except
name and kind has a default, and unknown keys are errors. The location of the images is not part of
it: a path is valid on one machine only, and the resolved configuration is published in the
manifest.
"""

import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from latentserve_training.data.config import DataConfig
from latentserve_training.errors import ConfigError
from latentserve_training.models.registry import KINDS
from latentserve_training.optim.optimizer import OptimizerConfig

PACKAGE = Path(__file__).parent
# Inside the package when it is installed, one level up in a checkout.
PRESETS_FOLDER = next(
    folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()
)
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # the manifest's
TOP_LEVEL = {"name": str, "kind": str, "seed": int}
MAX_COMPONENTS = 1024  # the manifest's limit


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The fields of the ``[sampler]`` table."""

    components: int = 0  # Gaussians in the mixture; 0 for no sampler
    covariance: Literal["full", "diagonal"] = "full"
    max_fit_images: int = 0  # training images whose latents it is fitted to; 0 means all

    def __post_init__(self) -> None:
        if not 0 <= self.components <= MAX_COMPONENTS:
            raise ValueError(f"components must lie between 0 (no sampler) and {MAX_COMPONENTS}")
        if self.max_fit_images < 0:
            raise ValueError("max_fit_images must be 0 (all) or more")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The fields of the ``[training]`` table."""

    epochs: int = 20
    batch_size: int = 128  # images per step over all processes
    threads: int = 1  # results are reproducible bit for bit only with the same number
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the networks, in training steps
    compile: bool = False  # networks by torch.compile: takes a minute, then steps are faster
    max_skipped_steps: int = 10  # per run, for a loss or gradient that is not finite
    patience_epochs: int = 0  # epochs without a better validation loss before a stop; 0: no stop

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.threads) < 1:
            raise ValueError("epochs, batch_size and threads must be 1 or more")
        if min(self.max_skipped_steps, self.patience_epochs) < 0:
            raise ValueError("max_skipped_steps and patience_epochs must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a run; the images are given separately."""

    name: str  # of the exported model
    kind: str
    seed: int
    model: Any  # the kind's config class
    data: DataConfig
    optimizer: OptimizerConfig
    training: LoopConfig
    sampler: SamplerConfig

    def as_dict(self) -> dict[str, Any]:
        """The configuration as plain values, as in the TOML file."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def load_config(preset: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a preset and apply overrides.

    Args:
        preset: Path of a ``.toml`` file, or name of a preset.
        overrides: ``key=value`` each, for example ``training.epochs=3``.

    Raises:
        ConfigError: If the preset cannot be read, or a key or value is not valid.
    """
    return parse_config(read_preset(preset, overrides))


def read_preset(
    preset: str, overrides: Iterable[str] = (), folder: Path = PRESETS_FOLDER
) -> dict[str, Any]:
    """Read the values of a preset and apply overrides, without validation.

    Raises:
        ConfigError: If it cannot be read, or an override is not ``key=value``.
    """
    try:
        values = tomllib.loads(_preset_path(preset, folder).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {preset!r}: {error}") from error
    for override in overrides:
        _apply_override(values, override)
    return values


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Build the configuration from plain values, as returned by :meth:`RunConfig.as_dict`.

    Raises:
        ConfigError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    kind_name = values.get("kind")
    if kind_name not in KINDS:
        raise ConfigError(f"kind is {kind_name!r}; it must be one of: {', '.join(sorted(KINDS))}")
    return RunConfig(**parse_values(values, _tables(kind_name)))


def parse_values(values: Mapping[str, Any], tables: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Check plain values against the top-level keys and the config class of each table.

    Raises:
        ConfigError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    _refuse_unknown(values, tables)
    for key, expected in TOP_LEVEL.items():
        if key in values:
            _convert(key, values[key], expected)
    name, seed = values.get("name", ""), values.get("seed", 0)
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"name is {name!r}; it becomes the name of the exported model and must consist of at "
            "most 63 lower-case letters, digits and inner hyphens"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    parsed = {table: _parse_table(table, of, values.get(table, {})) for table, of in tables.items()}
    return {"name": name, "kind": values["kind"], "seed": seed, **parsed}


def _tables(kind_name: str) -> dict[str, type[Any]]:
    return {
        "model": KINDS[kind_name].config,
        "data": DataConfig,
        "optimizer": OptimizerConfig,
        "training": LoopConfig,
        "sampler": SamplerConfig,
    }


def _preset_path(preset: str, folder: Path) -> Path:
    if preset.endswith(".toml"):
        return Path(preset)
    path = folder / f"{preset}.toml"
    if not path.is_file():
        names = sorted(entry.stem for entry in folder.glob("*.toml"))
        raise ConfigError(
            f"unknown preset {preset!r}; presets: {', '.join(names) or 'none'}. Give your own "
            "configuration as a path that ends in .toml"
        )
    return path


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write it as key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a string without quotes
    *parents, last = key.strip().split(".")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a table")
    table[last] = value


def _refuse_unknown(values: Mapping[str, Any], tables: Mapping[str, type[Any]]) -> None:
    known = list(TOP_LEVEL)
    for table, of in tables.items():
        known += [f"{table}.{field.name}" for field in fields(of)]
    for key, value in values.items():
        given = [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key]
        for name in given:
            if name in known:
                continue
            if name in tables:
                raise ConfigError(f"{name} is a table: write [{name}] followed by its keys")
            raise ConfigError(f"unknown key {name!r}; {_nearest(name, known)}")


def _nearest(name: str, known: list[str]) -> str:
    by_last_part = {key.rpartition(".")[2]: key for key in known}
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(name, known, 1) or [
        by_last_part[key] for key in difflib.get_close_matches(last, list(by_last_part), 1)
    ]
    # The same key in another table, or in none, is a better suggestion than a similar spelling.
    if last in by_last_part:
        close = [by_last_part[last]]
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _parse_table(table: str, of: type[Any], values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(of)
    converted = {
        key: _convert(f"{table}.{key}", value, hints[key]) for key, value in values.items()
    }
    try:
        return of(**converted)
    except ValueError as error:
        raise ConfigError(f"[{table}]: {error}") from error


def _convert(key: str, value: Any, expected: Any) -> Any:
    """Check a TOML value against the type of a field; convert lists to tuples, int to float."""
    if get_origin(expected) is Literal:
        if value in get_args(expected):
            return value
        raise ConfigError(f"{key} is {value!r}; it must be one of: {', '.join(get_args(expected))}")
    if isinstance(expected, types.UnionType):  # int | tuple[int, ...]
        single, several = get_args(expected)
        return _convert(key, value, several if isinstance(value, list | tuple) else single)
    if isinstance(expected, types.GenericAlias):  # tuple[int, ...]
        if isinstance(value, list | tuple):
            return tuple(_convert(key, element, get_args(expected)[0]) for element in value)
        raise ConfigError(f"{key} is {value!r}; it must be a list")
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:  # not isinstance, because True is an instance of int
        raise ConfigError(f"{key} is {value!r}; it must be of type {expected.__name__}")
    return value
