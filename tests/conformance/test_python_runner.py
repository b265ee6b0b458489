"""Tests of the Python clients with the conformance cases, on correct and on broken servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance_cases.command import CASES, GROUPS
from conformance_runner import command
from conformance_server.breakages import GROUPS as BREAKAGES
from conformance_server.launching import Fixture, launched


def started(folder: Path, transport: str) -> Iterator[Fixture]:
    with launched(folder / "servers.json", folder / "log", transport) as fixture:
        yield fixture


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    yield from started(tmp_path_factory.mktemp("aio"), "aio")


@pytest.fixture(scope="module")
def cq_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    yield from started(tmp_path_factory.mktemp("cq"), "cq")


@pytest.mark.parametrize("client", ["sync", "asyncio"])
@pytest.mark.parametrize("which", ["servers", "cq_servers"])
def test_every_case_passes(which: str, client: str, request: pytest.FixtureRequest) -> None:
    fixture: Fixture = request.getfixturevalue(which)
    outcomes = command.run(CASES, fixture.addresses, asyncio_client=client == "asyncio")
    assert {outcome.name: outcome.reason for outcome in outcomes if outcome.reason} == {}
    assert {outcome.group for outcome in outcomes} == set(GROUPS)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_server_is_detected(servers: Fixture, breakage: str) -> None:
    servers.break_as(breakage)
    try:
        outcomes = command.run(CASES, servers.addresses, BREAKAGES[breakage])
    finally:
        servers.break_as("none")
    assert {outcome.group for outcome in outcomes if outcome.reason} == set(BREAKAGES[breakage])


def test_every_group_must_detect_a_breakage() -> None:
    assert {group for groups in BREAKAGES.values() for group in groups} == set(GROUPS)


def test_the_command_prints_and_writes_its_report(
    servers: Fixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("servers", "report")}
    files["servers"].write_text(json.dumps({"servers": servers.addresses}), "utf-8")
    arguments = ["runner.py", "--cases", str(CASES), "--groups", "denoise"]
    for name, path in files.items():
        arguments += [f"--{name}", str(path)]
    monkeypatch.setattr("sys.argv", arguments)
    assert command.main() == 0
    assert capsys.readouterr().out == "3 passed, 0 failed\n"
    servers.break_as("ignored-format")
    try:
        assert command.main() == 1
    finally:
        servers.break_as("none")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("FAILED denoise/uint8-to-png: images are a ndarray, expected png")
    assert last == "2 passed, 1 failed"
    report = json.loads(files["report"].read_text("utf-8"))
    assert report["groups"] == {"denoise": {"passed": 2, "failed": 1}}
    assert [case["passed"] for case in report["cases"]] == [True, True, False]


def test_an_unknown_group_is_an_error(
    servers: Fixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "servers.json"
    path.write_text(json.dumps({"servers": servers.addresses}), "utf-8")
    arguments = ["--cases", str(CASES), "--servers", str(path), "--groups", "denoice"]
    monkeypatch.setattr("sys.argv", ["runner.py", *arguments])
    assert command.main() == 2
    assert "unknown group denoice" in capsys.readouterr().err
