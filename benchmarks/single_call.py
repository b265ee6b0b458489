"""What one call costs on an idle server, beside the bare run and an empty call.

    make bench          # or: python benchmarks/single_call.py --exports exports

Starts a server of its own and takes turns, so that all three see the same machine:

* bare run: the same graph in ONNX Runtime in this process, one image, same thread count;
* empty call: grpc.health.v1.Health/Check on the same server and connection;
* Reconstruct: one image as FLOAT32 tensor, FLOAT32 reply, message built once.

It also gives the time from the start of the process to SERVING and the resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from grpc_health.v1 import health_pb2

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2

START_LIMIT_S = 60.0
CHECK = "/grpc.health.v1.Health/Check"
RECONSTRUCT = "/latentserve.v1.GenerativeService/Reconstruct"
LIST_MODELS = "/latentserve.v1.ModelService/ListModels"


def start_server(exports: Path, address: str) -> tuple[subprocess.Popen[bytes], float]:
    """Start a server; return it and the seconds until health was SERVING."""
    command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
    command += ["--listen", address, "--device", "cpu", "--log-level", "error"]
    started = time.monotonic()
    process = subprocess.Popen(command)
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(CHECK)
        while time.monotonic() - started < START_LIMIT_S and process.poll() is None:
            try:
                reply = health_pb2.HealthCheckResponse.FromString(check(b"", timeout=1.0))
            except grpc.RpcError:
                reply = health_pb2.HealthCheckResponse()
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return process, time.monotonic() - started
            time.sleep(0.005)
    process.kill()
    raise SystemExit(f"the server did not serve within {START_LIMIT_S:g} s")


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in megabytes (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit("VmRSS is not in /proc: this benchmark needs Linux")


def bare_run(
    exports: Path, model: model_service_pb2.Model, image: np.ndarray
) -> Callable[[], object]:
    """Return a call of the reconstruct graph without any server."""
    folder = exports / model.name / str(model.version)
    spec = json.loads((folder / "manifest.json").read_text("utf-8"))["operations"]["reconstruct"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / spec["file"]), options, providers=["CPUExecutionProvider"]
    )
    feeds = {spec["inputs"][0]: image}
    return lambda: session.run(spec["outputs"], feeds)


def timed_us(call: Callable[[], object]) -> float:
    """Return the microseconds of one call."""
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1000


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="One call on an idle server.")
    parser.add_argument("--exports", type=Path, default=Path("exports"))
    parser.add_argument("--model", default="mnist-ae")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--port", type=int, default=50971)
    arguments = parser.parse_args()
    address = f"127.0.0.1:{arguments.port}"
    process, start_s = start_server(arguments.exports, address)
    try:
        with grpc.insecure_channel(address) as channel:
            measure(arguments, channel, process.pid, start_s)
    finally:
        process.terminate()
        process.wait(30)


def measure(arguments: argparse.Namespace, channel: grpc.Channel, pid: int, start_s: float) -> None:
    """Take turns between the three and print what they took."""
    listing = model_service_pb2.ListModelsResponse.FromString(channel.unary_unary(LIST_MODELS)(b""))
    models = [model for model in listing.models if model.name == arguments.model]
    if not models:
        raise SystemExit(f"{arguments.exports} has no model {arguments.model}")
    model = models[0]
    shape = (1, model.image.channels, model.image.height, model.image.width)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    request = generative_service_pb2.ReconstructRequest(
        model=tensor_pb2.ModelRef(name=model.name),
        images=tensor_pb2.Images(
            tensor=tensor_pb2.Tensor(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, data=image.tobytes()
            )
        ),
    ).SerializeToString()
    check = channel.unary_unary(CHECK)
    reconstruct = channel.unary_unary(RECONSTRUCT)
    run = bare_run(arguments.exports, model, image)
    turns: dict[str, Callable[[], object]] = {
        "bare ONNX Runtime run": run,
        "empty gRPC call": lambda: check(b"", timeout=5.0),
        "Reconstruct": lambda: reconstruct(request, timeout=5.0),
    }
    times_us: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(arguments.calls + 100):
        for name, call in turns.items():
            elapsed = timed_us(call)
            if turn >= 100:  # the first ones warm up
                times_us[name].append(elapsed)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, onnxruntime {onnxruntime.__version__}, "
        f"latentserve {version('latentserve-server')}\n"
    )
    print(f"{arguments.model}, one image, one call in flight, {arguments.calls} turns\n")
    print("| | p50 µs | p90 µs | p99 µs |\n|---|---|---|---|")
    for name, values in times_us.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"| {name} | {cuts[49]:.0f} | {cuts[89]:.0f} | {cuts[98]:.0f} |")
    medians = {name: statistics.median(values) for name, values in times_us.items()}
    sum_us = medians["bare ONNX Runtime run"] + medians["empty gRPC call"]
    print(f"\nReconstruct / (bare run + empty call): {medians['Reconstruct'] / sum_us:.2f}")
    print(f"\nstart of the process to SERVING: {start_s:.2f} s ({len(listing.models)} models)")
    print(f"resident memory after the calls: {resident_mb(pid):.0f} MB")


if __name__ == "__main__":
    main()
