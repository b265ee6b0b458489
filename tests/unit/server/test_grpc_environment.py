from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from latentserve_server import grpc_environment


def test_the_completion_queue_reads_and_writes_on_its_own_thread() -> None:
    environment: dict[str, str] = {}
    grpc_environment.prepare("cq", environment)
    assert environment == {"GRPC_EXPERIMENTS": "-event_engine_listener"}


def test_what_an_operator_set_stays() -> None:
    environment = {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}
    grpc_environment.prepare("cq", environment)
    assert environment == {"GRPC_EXPERIMENTS": "tcp_rcv_lowat"}


def test_grpc_aio_is_left_as_it_is() -> None:
    environment: dict[str, str] = {}
    grpc_environment.prepare("aio", environment)
    assert not environment


def test_a_release_that_was_not_tried_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.99.0")
    environment: dict[str, str] = {}
    grpc_environment.prepare("cq", environment)
    assert not environment


def test_the_core_that_is_installed_knows_the_name() -> None:
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
