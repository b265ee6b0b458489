"""What a call costs the server over each transport, beside the bare run and an empty call.

    python benchmarks/transports.py

Reconstruct of a 784-400-20-400-784 autoencoder on one ONNX Runtime thread, FLOAT32 both ways,
from a message that was serialised once. In every round these take turns, so that all see the
same machine:

* bare run: the graph alone in ONNX Runtime, in a process of its own: CPU time of a run;
* empty call: `echo_server.py`, which gives the same bytes back;
* grpc.aio and the completion queue: the server with `--transport aio` and `cq`.

The server's CPU time, user and system mode, is read from /proc. Where the client shares the
cores with the server, calls per second are those of both; CPU time is the steadier figure.
Needs h2load (Debian: nghttp2-client) and onnx (`make test` installs it).
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2

import h2load
import mlp_model
from latentserve.v1 import generative_service_pb2, tensor_pb2

START_TIMEOUT_S = 60.0
CHECK = "/grpc.health.v1.Health/Check"
RECONSTRUCT = "/latentserve.v1.GenerativeService/Reconstruct"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# Rows of a request, calls in flight, calls of a round.
CASES = ((1, 1, 3000), (1, 32, 12000), (1, 128, 12000), (16, 32, 5000), (64, 32, 2000))
AIO, CQ, ECHO, BARE = "aio", "cq", "empty call", "bare run"

BARE_RUN = """
import sys, time
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = np.random.default_rng(0).random((int(sys.argv[2]), 1, 28, 28), dtype=np.float32)
runs = int(sys.argv[3])
for _ in range(20):
    session.run(None, {"images": images})
started = time.process_time()
for _ in range(runs):
    session.run(None, {"images": images})
print((time.process_time() - started) / runs * 1e6)
"""


class Bench:
    """The servers that take turns, and what was measured: case -> who -> one figure a round."""

    def __init__(self, exports: Path) -> None:
        self.graph = mlp_model.write_export(exports) / "reconstruct.onnx"
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in (AIO, CQ, ECHO)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in (AIO, CQ):
            command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
            command += ["--listen", self.addresses[name], "--transport", name]
            command += ["--device", "cpu", "--threads", "1", "--log-level", "error"]
            self.processes[name] = subprocess.Popen(command)
        echo = [sys.executable, str(Path(__file__).with_name("echo_server.py"))]
        port = self.addresses[ECHO].rpartition(":")[2]
        self.processes[ECHO] = subprocess.Popen([*echo, port])
        self.cpu_us: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.loads: dict[tuple[int, int], dict[str, list[h2load.Load]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def wait(self) -> None:
        """Wait until every server answers, and check that it answers a real call."""
        for name in (AIO, CQ):
            with grpc.insecure_channel(self.addresses[name]) as channel:
                wait_until_serving(channel, self.processes[name])
                request = generative_service_pb2.ReconstructRequest.FromString(request_of(3))
                reply = generative_service_pb2.ReconstructResponse.FromString(
                    channel.unary_unary(RECONSTRUCT)(request.SerializeToString(), timeout=10.0)
                )
                if list(reply.images.tensor.shape) != [3, 1, 28, 28]:
                    raise SystemExit(f"{name} answers with {list(reply.images.tensor.shape)}")

    def round(self, *, counts: bool) -> None:
        """Let all take turns once; the first round is for warming up."""
        for rows, in_flight, calls in CASES:
            request = request_of(rows)
            for name, address in self.addresses.items():
                method = "/echo" if name == ECHO else RECONSTRUCT
                pid = self.processes[name].pid
                before = cpu_s(pid)
                load = h2load.load(address, method, request, calls=calls, in_flight=in_flight)
                used_us = (cpu_s(pid) - before) / calls * 1e6
                if counts:
                    self.cpu_us[rows, in_flight][name].append(used_us)
                    self.loads[rows, in_flight][name].append(load)
            command = [sys.executable, "-c", BARE_RUN, str(self.graph), str(rows), str(calls // 4)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            if counts:
                self.cpu_us[rows, in_flight][BARE].append(float(ran.stdout))

    def close(self) -> None:
        """Stop the servers."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def wait_until_serving(channel: grpc.Channel, process: subprocess.Popen[bytes]) -> None:
    """Wait until health is SERVING."""
    end = time.monotonic() + START_TIMEOUT_S
    check = channel.unary_unary(CHECK)
    while time.monotonic() < end and process.poll() is None:
        try:
            reply = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=1.0))
        except grpc.RpcError:
            time.sleep(0.05)
            continue
        if reply.status == health_pb2.HealthCheckResponse.SERVING:
            return
        time.sleep(0.05)
    raise SystemExit(f"a server did not serve within {START_TIMEOUT_S:g} s")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def request_of(rows: int) -> bytes:
    """Return a Reconstruct request of random images."""
    images = np.random.default_rng(0).random((rows, 1, 28, 28), dtype=np.float32)
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=images.shape, data=images.tobytes()
    )
    return generative_service_pb2.ReconstructRequest(
        model=tensor_pb2.ModelRef(name=mlp_model.NAME), images=tensor_pb2.Images(tensor=tensor)
    ).SerializeToString()


def spread(values: list[float]) -> str:
    """Return the median, with the lowest and the highest."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def report(bench: Bench, rounds: int) -> None:
    """Print Markdown tables: medians over the rounds, with the lowest and highest."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "onnxruntime"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{versions}; {rounds} rounds, medians (lowest–highest)\n"
    )
    print("Server CPU µs per call, and as a ratio:\n")
    print(
        "| rows, in flight | bare run | empty call | aio | cq | cq / bare | cq / empty | cq / aio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for (rows, in_flight), cpu_us in bench.cpu_us.items():
        middle = {name: statistics.median(values) for name, values in cpu_us.items()}
        cells = [spread(cpu_us[name]) for name in (BARE, ECHO, AIO, CQ)]
        cells += [f"{middle[CQ] / middle[name]:.2f}" for name in (BARE, ECHO, AIO)]
        print(f"| {rows}, {in_flight} | " + " | ".join(cells) + " |")
    print("\n| rows, in flight | empty call, calls/s | aio | cq | p50 µs: empty call | aio | cq |")
    print("|---|---|---|---|---|---|---|")
    for (rows, in_flight), loads in bench.loads.items():
        cells = [spread([load.calls_per_s for load in loads[name]]) for name in (ECHO, AIO, CQ)]
        cells += [spread([load.p50_us for load in loads[name]]) for name in (ECHO, AIO, CQ)]
        print(f"| {rows}, {in_flight} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The server's CPU per call over each transport.")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    h2load.check()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.wait()
            for number in range(arguments.rounds + 1):
                print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
                bench.round(counts=number > 0)
        finally:
            bench.close()
    report(bench, arguments.rounds)


if __name__ == "__main__":
    main()
