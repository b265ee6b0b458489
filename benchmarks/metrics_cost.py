"""What metrics and traces cost a call: nanoseconds of CPU, and as a share of what a call costs.

    python benchmarks/metrics_cost.py --exports exports --model mnist-ae

Makes what the transport and the batcher make of one call, in a loop: it begins, its rows leave
the queue, a batch runs, it ends. A batch of one call is the dearest case; with more calls in
a batch its two values are shared. Folding and a scrape now and then are part of the loop.

Then the same with a trace of each call, into an exporter that throws it away, where the extra
`tracing` is installed: a call under a caller that samples, and under one that does not.

Beside it, the CPU of the server for one call: Reconstruct of one image over `--transport cq`,
32 in flight, from /proc, the median of some rounds.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
from prometheus_client import generate_latest

from latentserve.v1 import generative_service_pb2, model_service_pb2, tensor_pb2
from latentserve_server.batching.request import Completion
from latentserve_server.observability.metrics import Metrics

RECONSTRUCT = "/latentserve.v1.GenerativeService/Reconstruct"
GET_MODEL = "/latentserve.v1.ModelService/GetModel"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 60.0
SCRAPE_EVERY = 100_000  # calls: at 10,000 calls/s, every ten seconds


def metrics_ns(calls: int, calls_per_batch: int) -> float:
    """Return the nanoseconds of CPU that the metrics of one call take."""
    metrics = Metrics(lambda: ())
    rpc = metrics.rpc(RECONSTRUCT, streaming=False)
    callbacks = metrics.callbacks("mnist-ae", 1)
    started = time.thread_time_ns()
    for number in range(1, calls + 1):
        rpc.begin()
        callbacks.waited("reconstruct", 0.0002)
        if number % calls_per_batch == 0:
            callbacks.ran("reconstruct", calls_per_batch, 0.0007)
        rpc.end("OK", 0.0013)
        if number % SCRAPE_EVERY == 0:
            generate_latest(metrics.registry)
    counted = time.thread_time_ns() - started
    started = time.thread_time_ns()
    for number in range(1, calls + 1):
        if number % calls_per_batch == 0:
            pass
        if number % SCRAPE_EVERY == 0:
            pass
    return (counted - (time.thread_time_ns() - started)) / calls


def trace_ns(calls: int, metadata: tuple[tuple[str, str], ...]) -> float:
    """Return the nanoseconds of CPU that the trace of one call takes, the SDK's thread included."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from latentserve_server.observability.opentelemetry import OpenTelemetry

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    method = OpenTelemetry(provider).method(RECONSTRUCT)
    manifest = SimpleNamespace(name="mnist-ae", version=1)
    model: Any = SimpleNamespace(manifest=manifest, provider="CPUExecutionProvider")
    completion = Completion(submitted_ns=time.monotonic_ns(), queue_ns=1000, compute_ns=1000)
    started = time.process_time_ns()
    for _ in range(calls):
        trace = method.begin(metadata)
        if trace is None:
            raise SystemExit("no call can be traced")
        trace.record_work((model, "reconstruct", 1, completion))
        trace.end("OK", None)
    provider.shutdown()
    return (time.process_time_ns() - started) / calls


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def server_us(exports: Path, model: str, calls: int, rounds: int) -> list[float]:
    """Return the server's microseconds of CPU per call, of each round."""
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "latentserve_server", "--exports", str(exports)]
        command += ["--listen", "127.0.0.1:0", "--device", "cpu", "--transport", "cq"]
        process = subprocess.Popen(command, stderr=log)
        try:
            address = wait_for_address(process, log)
            with grpc.insecure_channel(address) as channel:
                request = one_image(channel, model)
                call = channel.unary_unary(RECONSTRUCT)
                make_calls(call, request, calls)
                found = []
                for _ in range(rounds):
                    before = cpu_s(process.pid)
                    make_calls(call, request, calls)
                    found.append((cpu_s(process.pid) - before) / calls * 1e6)
                return found
        finally:
            process.terminate()
            process.wait(30)


def wait_for_address(process: subprocess.Popen[bytes], log: object) -> str:
    """Return HOST:PORT once the server's log says that it serves."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)  # type: ignore[attr-defined]
        _, there, rest = log.read().partition("is serving on ")  # type: ignore[attr-defined]
        if there and " " in rest:
            return str(rest.split(" ", 1)[0])
        time.sleep(0.05)
    raise SystemExit(f"the server did not serve within {START_TIMEOUT_S:g} s")


def make_calls(call: grpc.UnaryUnaryMultiCallable, request: bytes, calls: int) -> None:
    """Make calls, 32 in flight."""
    flying: collections.deque[grpc.Future] = collections.deque()
    for _ in range(calls):
        if len(flying) == 32:
            flying.popleft().result()
        flying.append(call.future(request, timeout=10.0))
    for future in flying:
        future.result()


def one_image(channel: grpc.Channel, model: str) -> bytes:
    """Return a Reconstruct request of one random image."""
    ref = tensor_pb2.ModelRef(name=model)
    request = model_service_pb2.GetModelRequest(model=ref).SerializeToString()
    reply = channel.unary_unary(GET_MODEL)(request, timeout=5.0)
    image = model_service_pb2.GetModelResponse.FromString(reply).model.image
    shape = (1, image.channels, image.height, image.width)
    data = np.random.default_rng(0).random(shape, dtype=np.float32).tobytes()
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=shape, data=data)
    return generative_service_pb2.ReconstructRequest(
        model=ref, images=tensor_pb2.Images(tensor=tensor)
    ).SerializeToString()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the metrics cost a call.")
    parser.add_argument("--exports", type=Path, default=Path("exports"))
    parser.add_argument("--model", default="mnist-ae")
    parser.add_argument("--loops", type=int, default=200_000, help="calls of the bare loop")
    parser.add_argument("--calls", type=int, default=4000, help="calls of one round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cost_ns = {
        per_batch: statistics.median(metrics_ns(arguments.loops, per_batch) for _ in range(5))
        for per_batch in (1, 16)
    }
    for per_batch, nanoseconds in cost_ns.items():
        print(f"metrics, {per_batch} calls in a batch: {nanoseconds:.0f} ns of CPU per call")
    if importlib.util.find_spec("opentelemetry"):
        for flags, sampled in (("01", "sampled"), ("00", "not sampled")):
            parent = f"00-{'ab' * 16}-{'cd' * 8}-{flags}"
            metadata = (("user-agent", "grpc"), ("traceparent", parent))
            cost = statistics.median(trace_ns(arguments.loops // 20, metadata) for _ in range(5))
            print(f"trace, {sampled}: {cost:.0f} ns of CPU per call")
    if arguments.rounds:
        found = server_us(arguments.exports, arguments.model, arguments.calls, arguments.rounds)
        whole = statistics.median(found)
        print(f"server, cq, 32 in flight: {whole:.0f} us ({min(found):.0f} to {max(found):.0f})")
        print(f"share of the metrics, 1 call in a batch: {cost_ns[1] / whole / 10:.2f} %")


if __name__ == "__main__":
    main()
