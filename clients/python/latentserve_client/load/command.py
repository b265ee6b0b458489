"""`latentserve load`: everything is checked, then the load runs, then the report is made."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from latentserve_client._command_line import CommandError, Report
from latentserve_client.load.drive.generator import CallLimits
from latentserve_client.load.drive.preparation import prepare
from latentserve_client.load.drive.processes import GeneratorConfig, open_processes
from latentserve_client.load.drive.run import Runner, RunResult
from latentserve_client.load.drive.sweep import SweepResult, run_sweep
from latentserve_client.load.measure.server_metrics import (
    MetricsSnapshot,
    MetricsUnavailable,
    scrape,
)
from latentserve_client.load.plan import config as planning
from latentserve_client.load.plan.conditions import Condition
from latentserve_client.load.plan.inputs import BadImages, read_images
from latentserve_client.load.plan.mix import BadMix
from latentserve_client.load.report.baseline import (
    BadBaseline,
    Change,
    compare,
    differing_options,
    read_baseline,
)
from latentserve_client.load.report.csv import write_csv
from latentserve_client.load.report.data import FORMAT, run_data, sweep_data
from latentserve_client.load.report.environment import machine, versions
from latentserve_client.load.report.html import write_html
from latentserve_client.load.report.progress import ProgressLine
from latentserve_client.load.report.text import report_text


def load(args: argparse.Namespace) -> Report:
    """Load a server and report. Raises before any load for what cannot work."""
    # The fallback of the transport must be heard.
    logging.basicConfig(format="latentserve load: %(message)s")
    plan = planning.read_config(args)
    target = planning.target(args)
    try:
        earlier = read_baseline(args.baseline) if args.baseline else None
        images = read_images(args.images)
        if args.protocol == "oip":
            from latentserve_client.load.open_inference import prepare_oip

            prepared = prepare_oip(args, plan, target)
        else:
            prepared = prepare(args, plan, target, images)
        scraped = _scraper(args.metrics_url)
        limits = CallLimits(planning.timeout_s(args), args.retries, args.max_in_flight)
        setup = GeneratorConfig(
            target,
            prepared.workload,
            limits,
            planning.connections(args),
            args.transport,
            args.seed,
            prepared.references,
            args.validate,
            processes=args.processes,
        )
        started = datetime.datetime.now(datetime.UTC)
        results, sweep, transport = _measure(plan, setup, scraped)
    except (BadBaseline, BadImages, BadMix, MetricsUnavailable, RuntimeError) as error:
        raise CommandError(str(error)) from None
    kinds = prepared.workload.kinds
    report: dict[str, Any] = {
        "format": FORMAT,
        "started": started.isoformat(timespec="seconds"),
        "options": {**planning.echo(args), "mix": args.mix or "default"},
        "versions": versions(),
        "machine": machine(),
        "server": {"address": args.server, "models": list(prepared.models)},
        "tester": {
            "processes": args.processes,
            "connections": setup.connections,
            "transport": transport,
        },
        "runs": [run_data(result, kinds) for result in results],
        "sweep": sweep_data(sweep) if sweep else None,
        # The run that conditions, baselines and the tables are about: of a sweep its knee.
        "shown": sweep.points.index(sweep.knee) if sweep and sweep.knee else len(results) - 1,
    }
    changes = compare(earlier, report) if earlier else []
    report["baseline"] = [_change_data(change) for change in changes]
    report["conditions"] = [
        _judged(condition, report["runs"][report["shown"]]) for condition in plan.conditions
    ]
    report["problems"] = _problems(report, sweep, earlier)
    text = report_text(report, changes) + _write(args.out, report)
    return Report(text, report, _exit_code(report))


def _measure(
    plan: planning.LoadTestConfig,
    setup: GeneratorConfig,
    scraped: Callable[[], MetricsSnapshot | None],
) -> tuple[list[RunResult], SweepResult | None, str]:
    """Run the load, or the sweep, and return what was found, and on which transport."""
    line = ProgressLine()
    processes = open_processes(setup)
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.close)
        stack.callback(line.clear)
        runner = Runner(
            processes,
            len(setup.workload.kinds),
            plan.timing,
            scrape=scraped,
            on_progress=line.show,
        )
        transport = processes[0].transport
        if plan.axis is None:
            return [runner.run(plan.load)], None, transport
        sweep = run_sweep(
            plan.axis,
            lambda load: runner.run(plan.at(load)),
            slo_p99_ms=plan.slo_p99_ms,
            refine=plan.refine,
        )
        return [point.result for point in sweep.points], sweep, transport


def _scraper(url: str | None) -> Callable[[], MetricsSnapshot | None]:
    """Return what reads the metrics. Raises MetricsUnavailable where that fails now."""
    if url is None:
        return lambda: None
    scrape(url)

    def again() -> MetricsSnapshot | None:
        try:
            return scrape(url)
        except MetricsUnavailable:
            return None  # the server may be busy or gone: the load's own figures say so

    return again


def _judged(condition: Condition, run: dict[str, Any]) -> dict[str, Any]:
    failed, value = condition.holds(run)
    return {"text": condition.text, "value": value, "failed": failed}


def _problems(
    report: dict[str, Any], sweep: SweepResult | None, earlier: dict[str, Any] | None
) -> list[str]:
    """Return what the reader must not miss."""
    problems = []
    last, shown = report["runs"][-1], report["runs"][report["shown"]]
    wrong = sum(run["validation"]["wrong"] for run in report["runs"])
    if wrong:
        problems.append(
            f"WRONG ANSWERS: {wrong} replies were not what the same request gives at rest"
        )
    if not shown["latency"]["max_ms"]:
        problems.append("NO CALL WAS ANSWERED WELL in the measured time")
    if shown["ended"] == "not stable":
        problems.append("NOT STABLE: the confidence intervals are wider than asked for")
    if last["ended"].startswith("failed"):
        problems.append(f"THE TESTER {last['ended']}")
    if sweep is not None and sweep.slo_p99_ms is not None and sweep.knee is None:
        problems.append("NO KNEE: even the lowest load breaks the objective")
    if earlier is not None and (different := differing_options(earlier, report)):
        problems.append("the baseline was another load: " + "; ".join(different))
    return problems


def _exit_code(report: dict[str, Any]) -> int:
    if any(run["ended"] == "interrupted" for run in report["runs"]):
        return 130
    # A baseline of another load is a remark; all the other problems begin in capitals.
    failed = any(problem[:2].isupper() for problem in report["problems"])
    return int(failed or any(condition["failed"] for condition in report["conditions"]))


def _change_data(change: Change) -> dict[str, Any]:
    return {
        "name": change.name,
        "before": change.before,
        "after": change.after,
        "share": change.share,
        "verdict": change.verdict,
    }


def _write(files: Sequence[Any], report: dict[str, Any]) -> str:
    """Write the report into each file and return the lines to print."""
    lines = []
    for path in files:
        if path.suffix == ".json":
            path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        elif path.suffix == ".csv":
            write_csv(path, report)
        else:
            write_html(path, report)
        lines.append(f"\nwrote {path}")
    return "".join(lines)
