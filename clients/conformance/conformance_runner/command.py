"""Command line of the Python runner: runs cases in sequence and reports results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance_runner.calls import Caller
from conformance_runner.case_folder import CaseFolder, Json
from conformance_runner.checks import Mismatch, check_error, check_result
from latentserve_client import LatentserveError


@dataclass(frozen=True)
class Outcome:
    """Result of a case; the reason is empty if it passed."""

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
    """Run the cases of these groups (all if empty) through one of the two clients."""
    folder = CaseFolder(cases)
    caller = Caller(addresses, folder, asyncio_client=asyncio_client)
    try:
        return [
            Outcome(case["name"], _reason(case, caller, folder)) for case in folder.read(groups)
        ]
    finally:
        caller.close()


def _reason(case: Json, caller: Caller, folder: CaseFolder) -> str:
    """Run one case; return why it failed, or an empty string."""
    try:
        try:
            result = caller.call(case)
        except LatentserveError as error:
            check_error(case, error)
        else:
            check_result(case, result, folder)
    except Mismatch as mismatch:
        return str(mismatch)
    except Exception as error:  # noqa: BLE001 - an exception fails only its case
        return f"{type(error).__name__}: {error}"
    return ""


def report(outcomes: list[Outcome], language: str = "python") -> Json:
    """Return the report in the format of README.md."""
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
    """Parse the command line, run the cases and print the results."""
    parser = argparse.ArgumentParser(prog="runner.py", description=__doc__)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--servers", type=Path, required=True)
    parser.add_argument(
        "--groups", default="", help="groups of cases, separated by commas; all if empty"
    )
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
