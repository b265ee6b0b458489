"""docs/operations.md says what the server does: every flag, exit status and metric."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from latentserve_server import exit_status
from latentserve_server.config import Settings
from latentserve_server.metrics import Metrics
from latentserve_server.worker_metrics import WorkerMetrics

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text("utf-8")
FLAGS = dict(re.findall(r"^\| (`--.*?) \| (.*?) \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_flag_is_there_with_its_default(field: dataclasses.Field[object]) -> None:
    flag = f"`--{field.name.replace('_', '-')}`"
    (default,) = [text for flags, text in FLAGS.items() if flag in flags.split(", ")]
    text = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    assert default.strip("`") == (text or "none")


def test_every_exit_status_is_there() -> None:
    known = {value for name, value in vars(exit_status).items() if name.isupper()}
    table = PAGE.partition("| exit status |")[2].partition("\n\n")[0]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == known


def test_every_metric_is_there() -> None:
    metrics, registry = Metrics(lambda: ()), CollectorRegistry()
    WorkerMetrics(registry)
    names = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for source in (metrics.registry, registry)
        for metric in source.collect()
        if not metric.name.startswith("process_")
    }
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
