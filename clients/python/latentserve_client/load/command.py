"""The command `latentserve load`: checks the options, runs the load, writes the report."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from latentserve_client._command_line import CommandError, CommandResult
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
from latentserve_client.load.plan.conditions import Condition
from latentserve_client.load.plan.config import (
    LoadTestConfig,
    call_timeout_s,
    connection_count,
    echoed_options,
    read_config,
    read_target,
)
from latentserve_client.load.plan.inputs import BadImages, read_images
from latentserve_client.load.plan.mix import BadMix
from latentserve_client.load.report.baseline import (
    BadBaseline,
    Comparison,
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


def load(args: argparse.Namespace) -> CommandResult:
    """Run a load test.

    Raises UsageError, CommandError or LatentserveError before the load starts.
    """
    # Shows the warning when the transport falls back to grpc.aio.
    logging.basicConfig(format="latentserve load: %(message)s")
    config = read_config(args)
    target = read_target(args)
    try:
        baseline = read_baseline(args.baseline) if args.baseline else None
        images = read_images(args.images)
        if args.protocol == "oip":
            from latentserve_client.load.open_inference import prepare_oip

            prepared = prepare_oip(args, config, target)
        else:
            prepared = prepare(args, config, target, images)
        scraper = _scraper(args.metrics_url)
        limits = CallLimits(call_timeout_s(args), args.retries, args.max_in_flight)
        generators = GeneratorConfig(
            target,
            prepared.workload,
            limits,
            connection_count(args),
            args.transport,
            args.seed,
            prepared.references,
            args.validate,
            processes=args.processes,
        )
        started = datetime.datetime.now(datetime.UTC)
        results, sweep, transport = _run(config, generators, scraper)
    except (BadBaseline, BadImages, BadMix, MetricsUnavailable, RuntimeError) as error:
        raise CommandError(str(error)) from None
    kinds = prepared.workload.kinds
    report: dict[str, Any] = {
        "format": FORMAT,
        "started": started.isoformat(timespec="seconds"),
        "options": {**echoed_options(args), "mix": args.mix or "default"},
        "versions": versions(),
        "machine": machine(),
        "server": {"address": args.server, "models": list(prepared.models)},
        "tester": {
            "processes": args.processes,
            "connections": generators.connections,
            "transport": transport,
        },
        "runs": [run_data(result, kinds) for result in results],
        "sweep": sweep_data(sweep) if sweep else None,
        # Index of the run for tables, conditions and baseline: the knee, or the last run.
        "shown": sweep.points.index(sweep.knee) if sweep and sweep.knee else len(results) - 1,
    }
    comparisons = compare(baseline, report) if baseline else []
    report["baseline"] = [_comparison_data(comparison) for comparison in comparisons]
    report["conditions"] = [
        _condition_data(condition, report["runs"][report["shown"]])
        for condition in config.conditions
    ]
    report["problems"] = _problems(report, sweep, baseline)
    text = report_text(report, comparisons) + _write(args.out, report)
    return CommandResult(text, report, _exit_code(report))


def _run(
    config: LoadTestConfig,
    generators: GeneratorConfig,
    scraper: Callable[[], MetricsSnapshot | None],
) -> tuple[list[RunResult], SweepResult | None, str]:
    """Run the load or the sweep; return the results, the sweep and the name of the transport."""
    line = ProgressLine()
    processes = open_processes(generators)
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.close)
        stack.callback(line.clear)
        runner = Runner(
            processes,
            len(generators.workload.kinds),
            config.timing,
            scrape=scraper,
            on_progress=line.show,
        )
        transport = processes[0].transport
        if config.axis is None:
            return [runner.run(config.load)], None, transport
        sweep = run_sweep(
            config.axis,
            lambda load: runner.run(config.at(load)),
            slo_p99_ms=config.slo_p99_ms,
            refine=config.refine,
        )
        return [point.result for point in sweep.points], sweep, transport


def _scraper(url: str | None) -> Callable[[], MetricsSnapshot | None]:
    """Return a function that reads the metrics. Raises MetricsUnavailable if a first read fails."""
    if url is None:
        return lambda: None
    scrape(url)

    def scrape_again() -> MetricsSnapshot | None:
        try:
            return scrape(url)
        except MetricsUnavailable:
            return None  # an overloaded or stopped server shows in the measurements of the load

    return scrape_again


def _condition_data(condition: Condition, run: dict[str, Any]) -> dict[str, Any]:
    failed, value = condition.evaluate(run)
    return {"text": condition.text, "value": value, "failed": failed}


def _problems(
    report: dict[str, Any], sweep: SweepResult | None, baseline: dict[str, Any] | None
) -> list[str]:
    """Return the problems of the run; those that fail it start in capitals."""
    problems = []
    last, shown = report["runs"][-1], report["runs"][report["shown"]]
    wrong = sum(run["validation"]["wrong"] for run in report["runs"])
    if wrong:
        problems.append(
            f"WRONG REPLIES: {wrong} replies differ from the reference reply of their request"
        )
    if not shown["latency"]["max_ms"]:
        problems.append("NO CALL SUCCEEDED in the measured time")
    if shown["ended"] == "not stable":
        problems.append("NOT STABLE: the confidence intervals are wider than --stable-within")
    if last["ended"].startswith("failed"):
        problems.append(f"THE LOAD TESTER {last['ended']}")
    if sweep is not None and sweep.slo_p99_ms is not None and sweep.knee is None:
        problems.append("NO KNEE: the lowest load violates the objective")
    if baseline is not None and (different := differing_options(baseline, report)):
        problems.append("the options of the baseline differ: " + "; ".join(different))
    return problems


def _exit_code(report: dict[str, Any]) -> int:
    if any(run["ended"] == "interrupted" for run in report["runs"]):
        return 130
    # Different options of the baseline are only a remark; all other problems start in capitals.
    failed = any(problem[:2].isupper() for problem in report["problems"])
    return int(failed or any(condition["failed"] for condition in report["conditions"]))


def _comparison_data(comparison: Comparison) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "before": comparison.before,
        "after": comparison.after,
        "share": comparison.share,
        "verdict": comparison.verdict,
    }


def _write(files: Sequence[Any], report: dict[str, Any]) -> str:
    """Write the report to each file and return the lines to print."""
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
