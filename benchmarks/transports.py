"""What a call costs the server over each transport: CPU, rate and time.

    python benchmarks/transports.py --exports exports --model mnist-ae

Starts one server per transport and takes turns between them, so that both see the same
machine. Each turn is one Reconstruct of one image per call, as FLOAT32, from a message
that was serialised once:

* `--in-flight` calls at a time, from a client on grpc.aio: the server's CPU time per call,
  from /proc, and the calls per second. Where the client shares the cores with the server,
  the rate is that of both; the CPU time is the steadier figure.
* one call at a time: the median time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2

TRANSPORTS = ("aio", "cq")
START_LIMIT_S = 60.0
CHECK = "/grpc.health.v1.Health/Check"
RECONSTRUCT = "/latentserve.v1.GenerativeService/Reconstruct"
GET_MODEL = "/latentserve.v1.ModelService/GetModel"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def start_server(exports: Path, address: str, transport: str) -> subprocess.Popen[bytes]:
    """Start a server and wait until health is SERVING."""
    command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
    command += ["--listen", address, "--device", "cpu", "--log-level", "warning"]
    process = subprocess.Popen([*command, "--transport", transport])
    end = time.monotonic() + START_LIMIT_S
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(CHECK)
        while time.monotonic() < end and process.poll() is None:
            try:
                reply = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=1.0))
            except grpc.RpcError:
                reply = health_pb2.HealthCheckResponse()
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return process
            time.sleep(0.01)
    process.kill()
    raise SystemExit(f"the server did not serve within {START_LIMIT_S:g} s")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def one_image(address: str, model: str) -> bytes:
    """Return a Reconstruct request of one random image."""
    ref = tensor_pb2.ModelRef(name=model)
    with grpc.insecure_channel(address) as channel:
        request = model_service_pb2.GetModelRequest(model=ref).SerializeToString()
        reply = channel.unary_unary(GET_MODEL)(request, timeout=5.0)
    image = model_service_pb2.GetModelResponse.FromString(reply).model.image
    shape = (1, image.channels, image.height, image.width)
    data = np.random.default_rng(0).random(shape, dtype=np.float32).tobytes()
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, data=data)
    return generative_service_pb2.ReconstructRequest(
        model=ref, images=tensor_pb2.Images(tensor=tensor)
    ).SerializeToString()


async def many(address: str, request: bytes, *, calls: int, in_flight: int) -> float:
    """Make calls, `in_flight` at a time, over one connection; return the seconds."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(RECONSTRUCT)
        await call(request, timeout=10.0)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await call(request, timeout=10.0)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return time.perf_counter() - started


def one_by_one_us(address: str, request: bytes, *, calls: int) -> list[float]:
    """Make calls one after the other and return the microseconds of each."""
    times_us = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(RECONSTRUCT)
        for _ in range(calls + 50):
            started = time.perf_counter_ns()
            call(request, timeout=10.0)
            times_us.append((time.perf_counter_ns() - started) / 1000)
    return times_us[50:]  # the first ones warm up


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="The server's CPU per call over each transport.")
    parser.add_argument("--exports", type=Path, default=Path("exports"))
    parser.add_argument("--model", default="mnist-ae")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=50981)
    arguments = parser.parse_args()
    addresses = {
        name: f"127.0.0.1:{arguments.port + index}" for index, name in enumerate(TRANSPORTS)
    }
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, address in addresses.items():
            processes[name] = start_server(arguments.exports, address, name)
        measure(arguments, addresses, {name: p.pid for name, p in processes.items()})
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(30)


def measure(arguments: argparse.Namespace, addresses: dict[str, str], pids: dict[str, int]) -> None:
    """Take turns and print the medians over the rounds, with the lowest and highest."""
    request = one_image(addresses[TRANSPORTS[0]], arguments.model)
    cpu_us: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    idle_cpu_us: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    rates: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    times_us: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
    calls = arguments.calls
    for turn in range(arguments.rounds + 1):
        for name, address in addresses.items():
            before = cpu_s(pids[name])
            seconds = asyncio.run(
                many(address, request, calls=calls, in_flight=arguments.in_flight)
            )
            between = cpu_s(pids[name])
            times = one_by_one_us(address, request, calls=calls // 4)
            after = cpu_s(pids[name])
            if turn:  # the first round warms up
                cpu_us[name].append((between - before) / calls * 1e6)
                rates[name].append(calls / seconds)
                idle_cpu_us[name].append((after - between) / (calls // 4) * 1e6)
                times_us[name] += times
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}; {arguments.model}, one image a call, "
        f"{arguments.rounds} rounds of {calls} calls\n"
    )
    print(
        f"| transport | server CPU µs per call, {arguments.in_flight} in flight | calls/s "
        "| server CPU µs per call, 1 in flight | p50 µs, 1 in flight |\n|---|---|---|---|---|"
    )
    for name in TRANSPORTS:
        print(
            f"| {name} | {spread(cpu_us[name])} | {spread(rates[name])} "
            f"| {spread(idle_cpu_us[name])} | {statistics.median(times_us[name]):.0f} |"
        )
    ratio = statistics.median(cpu_us["aio"]) / statistics.median(cpu_us["cq"])
    print(f"\nCPU per call, aio / cq, {arguments.in_flight} in flight: {ratio:.2f}")


def spread(values: list[float]) -> str:
    """Return the median, with the lowest and the highest."""
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


if __name__ == "__main__":
    main()
