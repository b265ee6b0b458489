"""Targets for metrics, from ``anchors.toml``, and comparison with records of runs."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_training.errors import ConfigError
from latentserve_training.train.reproduction import flat_values

COMPARISONS = ("value", "times_baseline", "below_baseline")
LABELS = ("verified by running", "read in source", "derived", "recalled, not verified")


@dataclass(frozen=True)
class Anchor:
    """A published or derived value that justifies a target."""

    text: str
    source: str
    how_sure: str  # one of LABELS

    def __post_init__(self) -> None:
        if self.how_sure not in LABELS:
            raise ValueError(f"how_sure is {self.how_sure!r}; it must be one of {LABELS}")


@dataclass(frozen=True)
class Target:
    """A target for one metric of some models."""

    name: str
    where: Mapping[str, Any]  # dotted key of a record's configuration → value
    metric: str
    anchors: tuple[Anchor, ...]
    compare: str = "value"  # one of COMPARISONS
    at_most: float = math.inf
    at_least: float = -math.inf
    seeds: int = 1  # required number of runs

    def __post_init__(self) -> None:
        if self.compare not in COMPARISONS:
            raise ValueError(f"compare is {self.compare!r}; it must be one of {COMPARISONS}")
        if math.isinf(self.at_most) == math.isinf(self.at_least):
            raise ValueError("give one of at_most and at_least")

    @property
    def reach(self) -> str:
        """The condition as text for a table."""
        if math.isinf(self.at_least):
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}"

    def is_reached_by(self, value: float) -> bool:
        """Whether the condition holds."""
        return self.at_least <= value <= self.at_most

    def value_of(self, record: Mapping[str, Any]) -> float:
        """The value of a record for this target; NaN if the record does not have the metric."""
        metric = record["metrics"].get(self.metric)
        if metric is None:
            return math.nan
        value = float(metric["value"])
        if self.compare == "value":
            return value
        if metric["baseline"] is None:
            return math.nan
        baseline = float(metric["baseline"]["value"])
        return baseline - value if self.compare == "below_baseline" else value / baseline


def matches(record: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether the configuration of a record has all settings in ``where``."""
    settings = flat_values(record["config"])
    return all(key in settings and settings[key] == value for key, value in where.items())


def read_targets(path: Path) -> tuple[Target, ...]:
    """Read the targets; empty if the file does not exist.

    Raises:
        ConfigError: If the file does not hold targets and their anchors.
    """
    if not path.is_file():
        return ()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Target(
                **{key: value for key, value in target.items() if key != "anchor"},
                anchors=tuple(Anchor(**anchor) for anchor in target["anchor"]),
            )
            for target in content["figure"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a list of targets: {error}") from error
