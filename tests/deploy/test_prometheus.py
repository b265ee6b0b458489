"""Prometheus configuration and alerts checked by promtool; dashboard checked by Grafana's types."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from deploy_files import DEPLOY, dashboard_queries

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
OPERATIONS = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/latentserve.json").read_text("utf-8"))
NEEDS_PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"),
    reason="needs promtool: install Prometheus",
)


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@NEEDS_PROMTOOL
def test_the_configuration_is_accepted() -> None:
    _promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@NEEDS_PROMTOOL
def test_each_alert_fires_at_the_expected_time() -> None:
    _promtool("test", "rules", str(DEPLOY / "prometheus" / "alerts.test.yml"))


def _alerts() -> set[str]:
    return set(re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8")))


def test_every_alert_has_a_test_and_is_documented() -> None:
    tests = (DEPLOY / "prometheus" / "alerts.test.yml").read_text("utf-8")
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts", tests))
    explained = set(re.findall(r"^\| `((?:Latentserve|Envoy)\w+)` \|", OPERATIONS, re.MULTILINE))
    assert _alerts() == fired == explained


def test_alerts_and_dashboard_use_documented_metrics_only() -> None:
    documented = set(re.findall(r"^\| `((?:latentserve|grpc)_\w+)` \|", OPERATIONS, re.MULTILINE))
    queries = ALERTS.read_text("utf-8") + " ".join(query for _, query in dashboard_queries())
    names = set(re.findall(r"\b(?:latentserve|grpc_server)_[a-z_]+\b(?=[\[{ )])", queries))
    parts = re.compile(r"_(?:bucket|sum|count)$")
    assert names, "no metric was found"
    assert {parts.sub("", name) for name in names} <= documented


def test_every_field_of_the_dashboard_is_known_to_grafanas_types() -> None:
    sdk = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard",
        reason="needs Grafana's types: pip install grafana-foundation-sdk",
    )
    from grafana_foundation_sdk.cog import encoder, plugins

    plugins.register_default_plugins()
    read = sdk.Dashboard.from_json(DASHBOARD)
    again = json.loads(json.dumps(read, cls=encoder.JSONEncoder))
    assert list(_lost(DASHBOARD, again)) == []


def _lost(ours: Any, theirs: Any, path: str = "") -> Any:
    """Yield the paths of missing or different fields after a round trip."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}/{key}"
            else:
                yield from _lost(value, theirs[key], f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield path


def test_panels_do_not_overlap_and_are_inside_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
