"""What a call costs through the client of each language: `make measure-clients`.

Starts one server, builds every client whose toolchain is there, and lets their bench programs
take turns: Reconstruct of one image of mnist-ae, the median time with one call in flight, and
calls per second with 32 in flight. Prints a Markdown table of the medians over the rounds.
Client and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

CLIENTS = Path(__file__).resolve().parent
MODEL = "mnist-ae"
START_LIMIT_S = 60.0
CHECK = "/grpc.health.v1.Health/Check"


def benches() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return folder and commands of every language that has a bench and its tools here."""
    found = {}
    for path in sorted(CLIENTS.glob("*/conformance.json")):
        document = json.loads(path.read_text("utf-8"))
        name = document["language"]
        if missing := [tool for tool in document["tools"] if shutil.which(tool) is None]:
            print(f"{name}: SKIPPED, not in PATH: {', '.join(missing)}", file=sys.stderr)
        elif "bench" not in document:
            print(f"{name}: SKIPPED, {path.name} names no bench", file=sys.stderr)
        else:
            found[name] = (path.parent, document["bench"])
    return found


def command_of(folder: Path, words: list[str]) -> list[str]:
    """Return a command with its program found: {python} is this interpreter."""
    program = sys.executable if words[0] == "{python}" else words[0]
    local = folder / program
    return [str(local) if local.is_file() else program, *words[1:]]


def start_server(exports: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server and wait until it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
    command += ["--listen", address, "--device", "cpu", "--log-level", "error"]
    process = subprocess.Popen(command)
    end = time.monotonic() + START_LIMIT_S
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(CHECK)
        while time.monotonic() < end and process.poll() is None:
            try:
                reply = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=1.0))
            except grpc.RpcError:
                time.sleep(0.05)
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return process, address
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"the server did not serve within {START_LIMIT_S:g} s")


def measure(
    languages: dict[str, tuple[Path, dict[str, Any]]], address: str, *, rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Let the languages take turns; return the figures of each round."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in languages}
    arguments = ["--address", address, "--model", MODEL, "--seconds", f"{seconds:g}"]
    for number in range(1, rounds + 1):
        for name, (folder, bench) in languages.items():
            print(f"round {number} of {rounds}: {name}", file=sys.stderr, flush=True)
            command = [*command_of(folder, bench["run"]), *arguments]
            ran = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
            figures[name].append(json.loads(ran.stdout.splitlines()[-1]))
    return figures


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description="What a call costs through each client.")
    parser.add_argument("--exports", type=Path, default=CLIENTS.parent / "exports")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of two figures")
    arguments = parser.parse_args()
    languages = benches()
    for name, (folder, bench) in languages.items():
        for words in bench["build"]:
            print(f"{name}: {' '.join(words)}", file=sys.stderr, flush=True)
            subprocess.run(command_of(folder, words), cwd=folder, check=True, stdout=sys.stderr)
    server, address = start_server(arguments.exports)
    try:
        figures = measure(languages, address, rounds=arguments.rounds, seconds=arguments.seconds)
    finally:
        server.terminate()
        server.wait(30)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores shared with the server, "
        f"grpcio {version('grpcio')}; {MODEL}, one image a call; medians of "
        f"{arguments.rounds} rounds (lowest–highest)\n"
    )
    print("| client | p50 µs, one in flight | calls/s, 32 in flight |\n|---|---|---|")
    for name, rounds in figures.items():
        cells = [spread([one[key] for one in rounds]) for key in ("p50_us", "calls_per_s")]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


def spread(values: list[float]) -> str:
    """Return the median, with the lowest and the highest."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


if __name__ == "__main__":
    main()
