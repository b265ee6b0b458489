"""Benchmark of calls: our server, a bare ONNX Runtime run, an empty call and other servers.

    python benchmarks/run.py [--quick] [--peers FOLDER]       # or `make bench`
    python benchmarks/run.py --from benchmarks/results.json   # renders without measuring

Writes RESULTS.md, results.json and plots. All servers run at the same time and are measured in turn
at every load, in rounds, so that the state of the machine is the same for all; the client is h2load
of nghttp2 with a request that was serialized once. bench/cells.py defines the loads and their
purposes. Needs Linux, h2load (Debian: nghttp2-client), and the packages of `make train` (onnx,
matplotlib).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before the import of numpy and ONNX Runtime, to limit their threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h2load
from bench import bare, growth, peers, processes, servers
from bench.cells import CQ, EMPTY, GROUPS, MLP, TRANSPORTS, Cell, cells, tiny
from bench.models import Model, write_models
from bench.requests import prepare
from bench.servers import Server
from bench.turns import FAILURES, Turns
from latentserve_client.load.report.environment import machine

FORMAT = "latentserve-bench/1"
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("latentserve-server", "grpcio", "onnxruntime", "numpy", "protobuf")
BARE_PART = 0.25  # fraction of a turn's seconds


@dataclass(frozen=True)
class Size:
    """Size of a measurement: time limit, number of rounds, and seconds per load and server."""

    minutes: float
    rounds: int
    seconds: float
    models: tuple[int, ...] = growth.MODELS
    clients: tuple[int, ...] = growth.CLIENTS


FULL = Size(minutes=24.0, rounds=7, seconds=1.0)
QUICK = Size(minutes=5.0, rounds=3, seconds=0.35)
TINY = Size(minutes=2.0, rounds=1, seconds=0.05, models=(1, 3), clients=(1, 4))


def main() -> int:
    """Measure or read results and write the report; with --check, return 1 if it is out of date."""
    arguments = _arguments()
    if arguments.read is not None:
        result = json.loads(arguments.read.read_text("utf-8"))
    else:
        result = measure(arguments)
    from bench import plots, report

    if arguments.check:
        return _check(arguments.out, report.markdown(result), plots.names(result))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    plots.draw_all(result, arguments.out / "plots")
    (arguments.out / "RESULTS.md").write_text(report.markdown(result), "utf-8")
    print(f"{arguments.out / 'RESULTS.md'}: {result['seconds']:.0f} s, {result['rounds']} rounds")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all measurements within the time limit; return the results."""
    h2load.check()
    size: Size = arguments.size
    started, before = time.monotonic(), machine()
    end = started + 60 * size.minutes
    pythons = peers.installed(arguments.peers)
    plan = (tiny if arguments.tiny else cells)(list(pythons))
    missing = peers.absent(pythons, arguments.peers)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        scratch = Path(folder)
        models = write_models(arguments.exports, scratch / "exports")
        grown = _growth(size, scratch, models, arguments.soaks, missing)
        running = _start(plan, scratch, models, pythons, missing, stack)
        fresh = {name: processes.memory_mb(server.pids) for name, server in running.items()}
        idle = _idle_cpu(running, min(2.0, 4 * size.seconds))
        turns = Turns(plan, running, models, size.seconds)
        _report_progress(f"{len(plan)} loads, {', '.join(running)}: warm-up", started)
        turns.warm_up()
        bare_found, rounds = _rounds(turns, models, size, started, end)
        about = {
            name: {
                **_server_facts(server),
                "fresh_mb": round(fresh[name], 1),
                "idle_share": idle[name],
            }
            for name, server in running.items()
        }
    if rounds < size.rounds:
        missing.append(f"{size.rounds - rounds} of {size.rounds} rounds: out of time")
    return {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%d"),
        "machine": before,
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in PACKAGES},
            **{name: peers.versions(python, name) for name, python in pythons.items()},
        },
        "rounds": rounds,
        "turn_s": size.seconds,
        "seconds": round(time.monotonic() - started, 1),
        "groups": GROUPS,
        "servers": about,
        "bare": bare_found,
        "cells": turns.data(),
        "growth": grown,
        "missing": [*missing, *turns.missing],
    }


def _rounds(
    turns: Turns, models: dict[str, Model], size: Size, started: float, end: float
) -> tuple[list[dict[str, Any]], int]:
    """Run rounds until all are done, or the next one would exceed the time limit."""
    points = bare.points(turns.cells)
    found: list[dict[str, Any]] = [
        {"model": model, "rpc": rpc, "rows": rows, "cpu_us": []} for model, rpc, rows in points
    ]
    longest_s = 0.0
    for number in range(size.rounds):
        began = time.monotonic()
        if number and began + longest_s > end:
            return found, number
        _report_progress(f"round {number + 1} of {size.rounds}", started)
        for each, us in zip(
            found, bare.cpu_us(models, points, BARE_PART * size.seconds), strict=True
        ):
            each["cpu_us"].append(float(f"{us:.5g}"))
        turns.round()
        longest_s = max(longest_s, time.monotonic() - began)
    return found, size.rounds


def _start(
    plan: list[Cell],
    scratch: Path,
    models: dict[str, Model],
    pythons: dict[str, Path],
    missing: list[str],
    stack: contextlib.ExitStack,
) -> dict[str, Server]:
    """Start all servers of the plan one after the other; add peers that fail to `missing`."""
    wanted = {name for cell in plan for name in cell.servers}
    running: dict[str, Server] = {}
    for name in (*TRANSPORTS, *pythons):
        if name not in wanted:
            continue
        try:
            if name in TRANSPORTS:
                server = servers.own(name, scratch / "exports", scratch, *TRANSPORTS[name])
            else:
                server = peers.start(name, pythons[name], models, scratch)
            stack.callback(server.stop)
            model = models[MLP]
            server.wait(partial(prepare, server.address, model, "Reconstruct", 1, peer=server.peer))
        except (servers.NotServing, OSError) as error:
            if name == CQ:
                raise SystemExit(str(error)) from error
            missing.append(f"{name}: {error}")
            continue
        running[name] = server
    running[EMPTY] = servers.empty(EMPTY, scratch)
    stack.callback(running[EMPTY].stop)
    return running


def _growth(
    size: Size, scratch: Path, models: dict[str, Model], soaks: Path, missing: list[str]
) -> dict[str, Any]:
    """Measure the growth of cost, before the other servers start."""
    rounds, seconds = min(3, size.rounds), size.seconds

    def attempt(name: str, measure: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            return measure()
        except (servers.NotServing, *FAILURES) as error:
            missing.append(f"growth with {name}: {error}")
            return []

    exports = scratch / "exports"
    found = {
        "models": attempt(
            "models", lambda: growth.number_of_models(size.models, scratch, rounds, seconds)
        ),
        "clients": attempt(
            "clients",
            lambda: growth.number_of_clients(
                size.clients, exports, models[MLP], scratch, rounds, seconds
            ),
        ),
        "hours": growth.hours(soaks),
    }
    if not found["hours"]:
        missing.append("growth over time: no soak-*.csv; `make soak` writes them")
    return found


def _idle_cpu(running: dict[str, Server], seconds: float) -> dict[str, float]:
    """Return the fraction of a core that each server uses without calls."""
    before = {name: processes.cpu_s(server.pids) for name, server in running.items()}
    time.sleep(seconds)
    return {
        name: round((processes.cpu_s(server.pids) - before[name]) / seconds, 4)
        for name, server in running.items()
    }


def _server_facts(server: Server) -> dict[str, Any]:
    return {
        "setup": server.setup,
        "start_s": round(server.start_s, 3),
        "processes": len(server.pids),
        "used_mb": round(processes.memory_mb(server.pids), 1),
    }


def _report_progress(text: str, started: float) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)


def _check(out: Path, expected: str, plots: list[str]) -> int:
    report = out / "RESULTS.md"
    problems = [f"plots/{name} is missing" for name in plots if not (out / "plots" / name).exists()]
    if not report.exists() or report.read_text("utf-8") != expected:
        problems.append(f"{report.name} differs from the rendered results")
    for problem in problems:
        print(f"{problem}; run benchmarks/run.py --from results.json", file=sys.stderr)
    return int(bool(problems))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the cost of calls and of alternatives.")
    parser.add_argument("--exports", type=Path, default=ROOT / "exports")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks", help="folder of the report"
    )
    parser.add_argument(
        "--peers", type=Path, help="folder with virtual environments of other servers"
    )
    parser.add_argument("--soaks", type=Path, default=ROOT / "runs", help="folder of soak-*.csv")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: 5 minutes")
    parser.add_argument("--tiny", action="store_true", help="some seconds, to test the script")
    parser.add_argument("--minutes", type=float, help="time limit (default: 24; quick: 5)")
    parser.add_argument("--rounds", type=int, help="(default: 7; quick: 3)")
    parser.add_argument(
        "--seconds", type=float, help="per load and server (default: 1; quick: 0.35)"
    )
    parser.add_argument("--from", dest="read", type=Path, help="results.json of an earlier run")
    parser.add_argument(
        "--check", action="store_true", help="with --from: check that the report is current"
    )
    arguments = parser.parse_args()
    if arguments.check and arguments.read is None:
        parser.error("--check needs --from")
    size = TINY if arguments.tiny else QUICK if arguments.quick else FULL
    arguments.size = Size(
        arguments.minutes or size.minutes,
        arguments.rounds or size.rounds,
        arguments.seconds or size.seconds,
        size.models,
        size.clients,
    )
    return arguments


if __name__ == "__main__":
    sys.exit(main())
