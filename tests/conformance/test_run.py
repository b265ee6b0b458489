"""Tests of `make conformance`: selection of languages, builds, and checks of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance_cases.command import CASES
from conformance_harness import command
from conformance_harness.command import Job, check, check_broken, choose
from conformance_harness.languages import CannotRun, build, find_languages
from conformance_server.breakages import GROUPS as BREAKAGES

# A runner that reports every case as passed without calls; {change} modifies it.
RUNNER = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
for name in ("cases", "servers", "report", "groups"):
    parser.add_argument("--" + name, default="")
options = parser.parse_args()
root = pathlib.Path(options.cases)
cases = [
    {{"name": case["name"], "passed": True, "reason": ""}}
    for name in json.loads((root / "index.json").read_text())["groups"]
    for case in json.loads((root / name).read_text())["cases"]
    if not options.groups or case["name"].partition("/")[0] in options.groups.split(",")
]
status, report = 0, {{"cases": cases}}
{change}
pathlib.Path(options.report).write_text(json.dumps(report))
failed = sum(not case["passed"] for case in cases)
print(len(cases) - failed, "passed,", failed, "failed")
sys.exit(status)
"""

FAIL_ONE = 'cases[3].update(passed=False, reason="it is wrong")\nstatus = 1'
FAIL_ALL = 'for case in cases: case.update(passed=False, reason="no")\nstatus = 1'


def language(clients: Path, name: str, change: str = "", **described: Any) -> None:
    folder = clients / name
    folder.mkdir(parents=True)
    (folder / "runner.py").write_text(RUNNER.format(change=change), "utf-8")
    document = {
        "language": name,
        "tools": [],
        "build": [],
        "run": ["{python}", "runner.py"],
        **described,
    }
    (folder / "conformance.json").write_text(json.dumps(document), "utf-8")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job").mkdir()
    return Job(CASES, tmp_path / "job")


def test_languages_are_found_by_their_conformance_json(tmp_path: Path) -> None:
    language(tmp_path, "ada")
    (tmp_path / "cobol").mkdir()
    assert [found.name for found in find_languages(tmp_path)] == ["ada"]
    assert "python" in [found.name for found in find_languages(command.CLIENTS)]


def test_one_table_shows_all_languages(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language(tmp_path, "ada")
    assert check(job, find_languages(tmp_path))
    language(tmp_path, "cobol", FAIL_ONE)
    assert not check(job, find_languages(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    number = job.case_counts()["encode"]
    assert table["encode"] == [f"{number}/{number}", f"{number - 1}/{number}", "!"]
    assert table["all"] == ["passed", "FAILED"]
    assert any(line.startswith("FAILED cobol: encode/") for line in lines)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("del cases[5]", "the report has {'encode'"),
        ("status = 1", "exit status 1 with 0 failures"),
        ('cases[0].update(passed=False, reason="no")', "exit status 0 with 1 failures"),
        ('print("3 passed"); sys.exit(0)', "exit status 0 and no report"),
        ('raise SystemExit("broken")', "exit status 1 and no report"),
        ("report = {}", "the report lacks 'cases'"),
        ("cases = cases[:1]", "the last line is"),
    ],
)
def test_an_inconsistent_report_is_refused(
    job: Job, tmp_path: Path, change: str, problem: str
) -> None:
    language(tmp_path, "ada", change)
    outcome = job.run(*find_languages(tmp_path))
    assert problem in outcome.problem
    assert not outcome.passed


def test_a_runner_is_killed_after_the_limit(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language(tmp_path, "ada", "import threading; threading.Event().wait()")
    monkeypatch.setattr(command, "RUN_LIMIT_S", 0.3)
    assert "did not exit within" in job.run(*find_languages(tmp_path)).problem


def test_a_missing_tool_skips_a_language_unless_it_is_required(tmp_path: Path) -> None:
    language(tmp_path, "ada", tools=["gnat-that-is-not-here"])
    language(tmp_path, "cobol")
    languages = find_languages(tmp_path)

    def chosen(only: list[str], required: list[str]) -> tuple[list[str], list[str], list[str]]:
        picked, skipped, errors = choose(languages, only, required)
        return [one.name for one in picked], skipped, errors

    missing = "ada: gnat-that-is-not-here not found in PATH"
    assert chosen([], []) == (["cobol"], [missing], [])
    assert chosen(["cobol"], []) == (["cobol"], [], [])
    for name in ("ada", "gnat-that-is-not-here"):
        assert chosen([], [name]) == (["cobol"], [], [missing])
    assert "fortran" in chosen(["fortran"], [])[2][0]
    assert "fortran" in chosen([], ["fortran"])[2][0]


def test_a_missing_requirement_is_an_error_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language(tmp_path, "ada", tools=["gnat-that-is-not-here"])
    assert command.main(["--require", "ada"], tmp_path) == 2
    assert "ERROR ada: gnat-that-is-not-here not found" in capsys.readouterr().out
    assert command.main([], tmp_path) == 2
    out = capsys.readouterr().out
    assert "SKIPPED ada: gnat-that-is-not-here not found" in out
    assert "no language was run" in out


def test_a_failed_build_reports_its_output(tmp_path: Path) -> None:
    steps = [["{python}", "-c", "print('made')"], ["{python}", "-c", "raise SystemExit('no')"]]
    language(tmp_path, "ada", build=steps)
    language(tmp_path, "cobol", build=[["cobc-that-is-not-here"]])
    ada, cobol = find_languages(tmp_path)
    with pytest.raises(CannotRun, match="exited with 1:\nmade\nno"):
        build(ada, tmp_path / "log")
    with pytest.raises(CannotRun, match="cobc-that-is-not-here cannot be started"):
        build(cobol, tmp_path / "log2")


class FakeFixture:
    """Fake servers that record breakages."""

    def __init__(self) -> None:
        self.breakages: list[str] = []

    def break_as(self, name: str) -> None:
        self.breakages.append(name)


def test_a_runner_that_passes_on_a_broken_server_is_reported(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "BREAKAGES", {"wrong-field": BREAKAGES["wrong-field"]})
    language(tmp_path, "ada", FAIL_ALL)
    fixture: Any = FakeFixture()
    assert check_broken(job, fixture, find_languages(tmp_path))
    language(tmp_path, "cobol")
    assert not check_broken(job, fixture, find_languages(tmp_path))
    assert fixture.breakages == ["wrong-field", "none"] * 2
    out = capsys.readouterr().out
    assert "MISSED cobol, wrong-field: errors passed" in out
    assert out.splitlines()[-1].split() == ["wrong-field", "caught", "MISSED"]
