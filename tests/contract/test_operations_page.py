"""docs/operations.md says what the server does: every flag, exit status and metric."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from latentserve_server import exit_status
from latentserve_server.config import Settings
from latentserve_server.observability.metrics import Metrics
from latentserve_server.repository.lifecycle import Action
from latentserve_server.repository.model_version import State
from latentserve_server.supervisor.worker_metrics import WorkerMetrics

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


METRICS = {
    name: (kind, re.findall(r"`(\w+)`", labels))
    for name, kind, labels in re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \| \S", PAGE, re.MULTILINE
    )
}


def test_every_metric_is_there_with_its_type_and_labels() -> None:
    metrics, registry = Metrics(lambda: ()), CollectorRegistry()
    workers = WorkerMetrics(registry)
    workers.update(serving=1)
    workers.restarted(1, 1)
    found = {}
    for metric in metrics.describe():
        # A family without samples knows its labels all the same.
        found[_shown(metric)] = metric.type, list(vars(metric)["_labelnames"])
    for metric in registry.collect():
        found[_shown(metric)] = metric.type, list(metric.samples[0].labels)
    assert len(found) > 15
    assert found == METRICS


def _shown(metric: Metric) -> str:
    return metric.name + ("_total" if metric.type == "counter" else "")


def test_every_reason_and_state_is_there() -> None:
    rows = {
        row.split("`")[1]: row for row in PAGE.splitlines() if row.startswith("| `latentserve_")
    }
    for name, values in (
        ("latentserve_model_state", State),
        ("latentserve_reload_outcomes_total", Action),
    ):
        assert {value.value for value in values} <= set(re.findall(r"`(\w+)`", rows[name]))
