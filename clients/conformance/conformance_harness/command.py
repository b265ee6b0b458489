"""Command line of `make conformance`: runs all languages and prints one table."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance_harness.languages import CannotRun, Language, build, find_languages, run
from conformance_harness.table import format_table
from conformance_server.breakages import GROUPS as BREAKAGES
from conformance_server.launching import Fixture, launched

_HERE = Path(__file__).resolve().parents[1]
CASES = _HERE / "cases"
CLIENTS = _HERE.parent
RUN_LIMIT_S = 600.0


@dataclass
class Outcome:
    """Result of one language."""

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # group: passed, cases
    failures: list[str] = field(default_factory=list)
    problem: str = ""  # why it did not run, or why its report is invalid

    @property
    def passed(self) -> bool:
        """Whether every case ran and passed."""
        return not self.problem and not self.failures


@dataclass(frozen=True)
class Job:
    """The cases to run, and the folder for output files."""

    cases: Path
    folder: Path  # for servers.json, reports and logs

    @property
    def servers_file(self) -> Path:
        """The JSON file with the addresses of the servers."""
        return self.folder / "servers.json"

    def case_counts(self) -> dict[str, int]:
        """Return the number of cases of each group, in order."""
        index = json.loads((self.cases / "index.json").read_text("utf-8"))
        documents = [json.loads((self.cases / name).read_text("utf-8")) for name in index["groups"]]
        return {document["group"]: len(document["cases"]) for document in documents}

    def run(self, language: Language, groups: Collection[str] = ()) -> Outcome:
        """Run one language over these groups (all if empty) and verify its report."""
        report = self.folder / f"{language.name}.json"
        report.unlink(missing_ok=True)
        arguments = ["--cases", str(self.cases), "--servers", str(self.servers_file)]
        arguments += ["--report", str(report)]
        if groups:
            arguments += ["--groups", ",".join(groups)]
        try:
            status, output = run(language, arguments, RUN_LIMIT_S)
            document = json.loads(report.read_text("utf-8"))
        except CannotRun as error:
            return Outcome(problem=str(error))
        except (OSError, ValueError):
            return Outcome(problem=f"exit status {status} and no report:\n{output[-2000:]}")
        wanted = {name: n for name, n in self.case_counts().items() if not groups or name in groups}
        try:
            return _read_report(document, status, output, wanted)
        except (KeyError, TypeError) as error:
            return Outcome(problem=f"the report lacks {error}")


def _read_report(document: Any, status: int, output: str, wanted: dict[str, int]) -> Outcome:
    """Return the outcome of a report after checking it against the cases and the exit status."""
    counts = dict.fromkeys(wanted, (0, 0))
    failures = []
    for case in document["cases"]:
        group = case["name"].partition("/")[0]
        passed, number = counts.get(group, (0, 0))
        counts[group] = (passed + bool(case["passed"]), number + 1)
        if not case["passed"]:
            failures.append(f"{case['name']}: {case['reason']}")
    outcome = Outcome(counts, failures)
    ran = {group: number for group, (_, number) in counts.items()}
    passed = len(document["cases"]) - len(failures)
    lines = output.strip().splitlines()
    if ran != wanted:
        outcome.problem = f"the report has {ran} cases, expected {wanted}"
    elif status != int(bool(failures)):
        outcome.problem = f"exit status {status} with {len(failures)} failures"
    elif not lines or lines[-1] != f"{passed} passed, {len(failures)} failed":
        outcome.problem = f"the last line is {lines[-1:]}, but the report has {passed} passed"
    return outcome


def choose(
    languages: Sequence[Language], only: Collection[str], required: Collection[str]
) -> tuple[list[Language], list[str], list[str]]:
    """Return the languages to run, the reasons why others are skipped, and the errors."""
    chosen: list[Language] = []
    skipped: list[str] = []
    errors: list[str] = []
    for name in [*only, *required]:
        if not any(language.matches(name) for language in languages):
            known = ", ".join(language.name for language in languages)
            errors.append(
                f"{name}: no clients/*/conformance.json has this language; available: {known}"
            )
    for language in languages:
        if only and not any(language.matches(name) for name in only):
            continue
        missing = language.missing_tools()
        if not missing:
            chosen.append(language)
            continue
        reason = f"{language.name}: {', '.join(missing)} not found in PATH"
        wanted = any(language.matches(name) for name in required)
        (errors if wanted else skipped).append(reason)
    return chosen, skipped, errors


def check(job: Job, languages: Sequence[Language]) -> bool:
    """Run the languages against correct servers; print a table, return whether all passed."""
    outcomes = {}
    for language in languages:
        print(f"{language.name}: running", flush=True)
        outcomes[language.name] = job.run(language)
    for name, outcome in outcomes.items():
        for failure in outcome.failures:
            print(f"FAILED {name}: {failure}")
        if outcome.problem:
            print(f"FAILED {name}: {outcome.problem}")
    rows = {}
    for group, number in job.case_counts().items():
        cells = [outcome.counts.get(group, (0, number)) for outcome in outcomes.values()]
        rows[group] = [f"{passed}/{n}" + ("" if passed == n else " !") for passed, n in cells]
    rows["all"] = ["passed" if outcome.passed else "FAILED" for outcome in outcomes.values()]
    print(format_table("", list(outcomes), rows))
    return all(outcome.passed for outcome in outcomes.values())


def check_broken(job: Job, fixture: Fixture, languages: Sequence[Language]) -> bool:
    """Run the languages against every broken server; return whether each detected each."""
    rows = {}
    for breakage, groups in BREAKAGES.items():
        print(f"broken: {breakage}", flush=True)
        fixture.break_as(breakage)
        cells = []
        for language in languages:
            outcome = job.run(language, groups)
            passed = [g for g in groups if (pair := outcome.counts.get(g)) and pair[0] == pair[1]]
            if outcome.problem:
                print(f"FAILED {language.name}, {breakage}: {outcome.problem}")
            elif passed:
                print(f"MISSED {language.name}, {breakage}: {', '.join(passed)} passed")
            cells.append("MISSED" if passed or outcome.problem else "caught")
        rows[breakage] = cells
    fixture.break_as("none")
    print(format_table("broken", [language.name for language in languages], rows))
    return all(cell == "caught" for cells in rows.values() for cell in cells)


def main(arguments: Sequence[str] | None = None, clients: Path = CLIENTS) -> int:
    """Build and run; return 0 only if everything passed."""
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("--only", default="", help="languages, separated by commas")
    parser.add_argument(
        "--require", default="", help="languages or tools that must be present, for CI"
    )
    parser.add_argument("--broken", action="store_true", help="run against the broken servers")
    parser.add_argument("--transport", choices=("aio", "cq"), default="aio")
    parser.add_argument("--reports", type=Path, help="keep reports and logs in this folder")
    options = parser.parse_args(arguments)
    only, required = (
        [name for name in text.split(",") if name] for text in (options.only, options.require)
    )
    languages, skipped, errors = choose(find_languages(clients), only, required)
    for reason in skipped:
        print(f"SKIPPED {reason}")
    for error in errors:
        print(f"ERROR {error}")
    if errors or not languages:
        print("no language was run")
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.reports.resolve() if options.reports else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(CASES, folder)
        built = _build_all(languages, folder)
        with launched(job.servers_file, folder / "server.log", options.transport) as fixture:
            good = (
                check_broken(job, fixture, built) if options.broken else check(job, built)
            ) and len(built) == len(languages)
    for reason in skipped:
        print(f"SKIPPED {reason}")
    return int(not good)


def _build_all(languages: Sequence[Language], folder: Path) -> list[Language]:
    """Build all languages; return those whose build succeeded."""
    built = []
    for language in languages:
        try:
            build(language, folder / f"{language.name}.build.log")
            built.append(language)
        except CannotRun as error:
            print(f"FAILED {language.name}: {error}")
    return built
