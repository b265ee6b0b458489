from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from latentserve_server import grpc_environment


def test_cq_disables_the_event_engine_listener() -> None:
    environment: dict[str, str] = {}
    grpc_environment.prepare("cq", environment)
    assert environment == {"GRPC_EXPERIMENTS": "-event_engine_listener"}


def test_a_value_set_by_the_operator_is_kept() -> None:
    environment = {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}
    grpc_environment.prepare("cq", environment)
    assert environment == {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}


def test_aio_sets_no_variable() -> None:
    environment: dict[str, str] = {}
    grpc_environment.prepare("aio", environment)
    assert not environment


def test_an_untested_release_sets_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.99.0")
    environment: dict[str, str] = {}
    grpc_environment.prepare("cq", environment)
    assert not environment


def test_the_installed_core_knows_the_experiment() -> None:
    environment: dict[str, str] = {}
    grpc_environment.prepare("cq", environment)
    started = subprocess.run(
        [sys.executable, "-c", "import grpc; grpc.server(None)"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "xperiment" not in started.stderr
