"""CPU cost per call of load testers: `latentserve load` on both transports, and ghz.

    go install github.com/bojand/ghz/cmd/ghz@v0.120.0      # into your GOBIN
    python benchmarks/load_testers.py --exports exports --ghz ghz

Starts a server and measures the testers in turn, so that the state of the machine is the same for
all. The load is Reconstruct of one image per call, from a message that was serialized once, over
one connection. CPU is the user and system time of the tester's process without its start: for ghz,
a second run with few calls is subtracted; ours is in the report. Rates depend on the CPU that the
server uses on the same cores; CPU time varies less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc

from latentserve_client import Client, digits
from latentserve_client._base import ClientBase
from latentserve_client._server_process import ServerProcess, free_address, server_command

PROTO = Path(__file__).resolve().parents[1] / "proto"
METHOD = "latentserve.v1.GenerativeService/Reconstruct"
FEW_CALLS = 200


def children_cpu_s() -> float:
    """Return the CPU seconds of all processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ghz_cpu_s(arguments: argparse.Namespace, address: str, request: Path, calls: int) -> float:
    """Make calls with ghz; return its CPU seconds, including its start."""
    command = [arguments.ghz, "--insecure", "--import-paths", str(PROTO), "--proto"]
    command += ["latentserve/v1/generative_service.proto", "--call", METHOD, "-B", str(request)]
    command += ["-c", str(arguments.in_flight), "--connections", "1", "-n", str(calls)]
    before = children_cpu_s()
    result = subprocess.run(
        [*command, "--format", "json", address], check=True, capture_output=True, timeout=300
    )
    counts = json.loads(result.stdout)["statusCodeDistribution"]
    if counts != {"OK": calls}:
        raise SystemExit(f"ghz: {counts}; expected {calls} times OK")
    return children_cpu_s() - before


def ghz_us(arguments: argparse.Namespace, address: str, request: Path) -> float:
    """Return ghz's CPU microseconds per call."""
    start_s = ghz_cpu_s(arguments, address, request, FEW_CALLS)
    all_s = ghz_cpu_s(arguments, address, request, arguments.calls + FEW_CALLS)
    return (all_s - start_s) / arguments.calls * 1e6


def ours_us(arguments: argparse.Namespace, address: str, transport: str) -> float:
    """Return the CPU microseconds per call of `latentserve load`."""
    command = [sys.executable, "-m", "latentserve_client", "load", "--server", address, "--json"]
    command += ["--mix", f"reconstruct:model={arguments.model}", "--transport", transport]
    command += ["--concurrency", str(arguments.in_flight), "--warm-up-s", "0.5"]
    command += ["--duration-s", str(arguments.seconds), "--validate", "0"]
    result = subprocess.run(command, check=True, capture_output=True, timeout=300)
    report = json.loads(result.stdout)
    if report["tester"]["transport"] != transport or report["runs"][0]["errors"]:
        raise SystemExit(f"load: {report['tester']}, {report['runs'][0]['codes']}")
    return float(report["runs"][0]["tester"]["cpu_us_per_call"])


def one_image(model: str) -> bytes:
    """Return a Reconstruct request of one digit in FLOAT32."""
    images = digits.bundled().images[:1] / 255
    base = ClientBase(
        "",
        timeout_s=1,
        model=model,
        wait_for_ready=False,
        max_message_bytes=2**20,
        metadata=(),
        may_be_read=False,
    )
    message = base._reconstruct_call(images, None, "float32", None).request
    return bytes(message.SerializeToString())


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="CPU per call of load testers.")
    parser.add_argument("--exports", type=Path, default=Path("exports"))
    parser.add_argument("--model", default="mnist-ae")
    parser.add_argument("--ghz", default=shutil.which("ghz"), help="program (default: from PATH)")
    parser.add_argument("--calls", type=int, default=10_000, help="calls of ghz per round")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="duration of `latentserve load` per round"
    )
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.ghz:
        parser.error("ghz not found: go install github.com/bojand/ghz/cmd/ghz@v0.120.0")
    address = free_address()
    with (
        tempfile.NamedTemporaryFile() as request,
        ServerProcess(server_command(arguments.exports, address, "cpu")) as server,
    ):
        request.write(one_image(arguments.model))
        request.flush()
        with Client(address) as client:
            server.wait_until_serving(client)
        testers: dict[str, Callable[[], float]] = {
            "ghz": lambda: ghz_us(arguments, address, Path(request.name)),
            "latentserve load": lambda: ours_us(arguments, address, "cq"),
            "latentserve load --transport aio": lambda: ours_us(arguments, address, "aio"),
        }
        found: dict[str, list[float]] = {name: [] for name in testers}
        for _ in range(arguments.rounds):
            for name, measure in testers.items():
                found[name].append(measure())
    show(arguments, found)


def show(arguments: argparse.Namespace, found: dict[str, list[float]]) -> None:
    """Print the medians with minimum and maximum."""
    version = subprocess.run(
        [arguments.ghz, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, ghz {(version.stdout or version.stderr).strip()}; "
        f"{arguments.model}, one image per call, {arguments.in_flight} in flight, "
        f"{arguments.rounds} rounds\n\n"
        "| tester | CPU µs per call | calls per CPU second | relative to ghz |\n|---|---|---|---|"
    )
    ghz = statistics.median(found["ghz"])
    for name, values in found.items():
        median = statistics.median(values)
        print(
            f"| {name} | {median:.0f} ({min(values):.0f}–{max(values):.0f}) | {1e6 / median:.0f} "
            f"| {ghz / median:.1f} × |"
        )


if __name__ == "__main__":
    main()
