"""Runs cases one after the other, prints and reports what came of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance_runner.calls import Caller
from conformance_runner.case_reading import CaseFolder, Json
from conformance_runner.checks import Mismatch, check_answer, check_error
from latentserve_client import LatentserveError


@dataclass(frozen=True)
class Outcome:
    """How a case ended; the reason is empty where it passed."""

    name: str
    reason: str

    @property
    def group(self) -> str:
        """The group of the case."""
        return self.name.partition("/")[0]


def run(
    cases: Path,
    addresses: Mapping[str, str],
    groups: Collection[str] = (),
    *,
    asyncio_client: bool = False,
) -> list[Outcome]:
    """Run the cases of a folder, of all groups or of these, through one of the two clients."""
    folder = CaseFolder(cases)
    caller = Caller(addresses, folder, asyncio_client=asyncio_client)
    try:
        return [
            Outcome(case["name"], _reason(case, caller, folder)) for case in folder.read(groups)
        ]
    finally:
        caller.close()


def _reason(case: Json, caller: Caller, folder: CaseFolder) -> str:
    """Run one case; return why it failed, or nothing."""
    try:
        try:
            answer = caller.call(case)
        except LatentserveError as error:
            check_error(case, error)
        else:
            check_answer(case, answer, folder)
    except Mismatch as mismatch:
        return str(mismatch)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a case fails that case alone
        return f"{type(error).__name__}: {error}"
    return ""


def report(outcomes: list[Outcome], language: str = "python") -> Json:
    """Return the report that README.md describes."""
    groups: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        counts = groups.setdefault(outcome.group, {"passed": 0, "failed": 0})
        counts["failed" if outcome.reason else "passed"] += 1
    return {
        "language": language,
        "passed": sum(counts["passed"] for counts in groups.values()),
        "failed": sum(counts["failed"] for counts in groups.values()),
        "groups": groups,
        "cases": [
            {"name": outcome.name, "passed": not outcome.reason, "reason": outcome.reason}
            for outcome in outcomes
        ],
    }


def main() -> int:
    """Read the command line, run, and print."""
    parser = argparse.ArgumentParser(prog="runner.py", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--servers", type=Path, required=True)
    parser.add_argument("--groups", default="", help="of cases, separated by commas; empty: all")
    parser.add_argument("--client", choices=("sync", "asyncio"), default="sync")
    parser.add_argument("--report", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    groups = [group for group in arguments.groups.split(",") if group]
    try:
        addresses = json.loads(arguments.servers.read_text("utf-8"))["servers"]
        outcomes = run(
            arguments.cases, addresses, groups, asyncio_client=arguments.client == "asyncio"
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    language = "python" if arguments.client == "sync" else "python-asyncio"
    document = report(outcomes, language)
    for outcome in outcomes:
        if outcome.reason:
            print(f"FAILED {outcome.name}: {outcome.reason}")
    if arguments.report:
        arguments.report.write_text(json.dumps(document, indent=1), "utf-8")
    print(f"{document['passed']} passed, {document['failed']} failed")
    return int(document["failed"] > 0)
