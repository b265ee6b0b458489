"""What gpu.py measures with: a timer, real servers, clients in processes of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from latentserve.v1 import generative_service_pb2, tensor_pb2
from latentserve_server.engine.onnx import FAILURES as ENGINE_FAILURES

START_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 60.0
CLIENTS = 3
IN_FLIGHT = 3  # of each client
RECONSTRUCT = "/latentserve.v1.GenerativeService/Reconstruct"
_SERVES = re.compile(r"(?:workers are|latentserve \S+ is) serving on ([^\s,]+)")


class NotMeasured(Exception):
    """A figure could not be taken; the text says why."""


FAILURES = (*ENGINE_FAILURES, NotMeasured, OSError, grpc.RpcError, subprocess.SubprocessError)


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Return the median milliseconds of a call, repeated for that long after three to warm up."""
    for _ in range(3):
        call()
    times_ms: list[float] = []
    end = time.perf_counter() + seconds
    while not times_ms or time.perf_counter() < end:
        started = time.perf_counter_ns()
        call()
        times_ms.append((time.perf_counter_ns() - started) / 1e6)
    return statistics.median(times_ms)


def in_float16(folder: Path, scratch: Path) -> Path:
    """Write a float16 copy of a version folder; raises NotMeasured without latentserve-training."""
    try:
        import onnx

        from latentserve_training.graphs.float16 import to_float16
    except ImportError as error:
        raise NotMeasured("latentserve-training, which converts to float16, is missing") from error
    copy = scratch / folder.parent.name / folder.name
    copy.mkdir(parents=True)
    document = json.loads((folder / "manifest.json").read_text("utf-8"))
    document["precision"] = "float16"
    for name in document["files"]:
        content = (folder / name).read_bytes()
        if name.endswith(".onnx"):
            content = to_float16(onnx.load_from_string(content), name).SerializeToString()
        (copy / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        document["files"][name] = {"sha256": digest, "bytes": len(content)}
    (copy / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    return copy


@contextlib.contextmanager
def serving(flags: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server with these flags; give its address once it serves."""
    command = [sys.executable, "-m", "latentserve_server", "--listen", "127.0.0.1:0", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_TIMEOUT_S
        while not (found := _SERVES.findall(_serving_lines(log, flags))):
            if process.poll() is not None or time.monotonic() > end:
                last = log.read_text("utf-8").splitlines()[-1:]
                raise NotMeasured(f"the server does not serve: {' '.join(last)}")
            time.sleep(0.01)
        yield found[-1]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serving_lines(log: Path, flags: Sequence[str]) -> str:
    """Return the lines that may say that all serve: of several workers, only the supervisor's."""
    text = log.read_text("utf-8")
    alone = flags[-1] == "1" or "--workers" not in flags
    return text if alone else "\n".join(line for line in text.splitlines() if "workers are" in line)


def request_of(model: str, shape: Sequence[int], rows: int) -> bytes:
    """Return a Reconstruct request of random images, uint8 there and back."""
    whole = (rows, *shape)
    data = np.random.default_rng(0).integers(0, 256, whole, dtype=np.uint8).tobytes()
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_UINT8, shape=whole, data=data)
    return generative_service_pb2.ReconstructRequest(
        model=tensor_pb2.ModelRef(name=model),
        images=tensor_pb2.Images(tensor=tensor),
        output_format=tensor_pb2.IMAGE_FORMAT_UINT8,
    ).SerializeToString()


def first_reply_s(flags: Sequence[str], log: Path, model: str, shape: Sequence[int]) -> float:
    """Return the seconds from the start of a server to its first answer."""
    request = request_of(model, shape, 1)
    started = time.monotonic()
    with serving(flags, log) as address, grpc.insecure_channel(address) as channel:
        channel.unary_unary(RECONSTRUCT)(request, timeout=CALL_TIMEOUT_S)
        return time.monotonic() - started


def rows_per_s(
    address: str, model: str, shape: Sequence[int], rows: int, seconds: float, workers: int
) -> float:
    """Return the rows per second that clients in processes of their own get together.

    Every process makes as many connections as there are workers, which the kernel spreads.
    """
    command = [sys.executable, __file__, address, model, json.dumps(list(shape))]
    command += [str(rows), str(seconds), str(workers)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_client(command)) for _ in range(CLIENTS)]
        for client in clients:
            _line(client)  # it is connected, and has had a first answer
        for client in clients:
            client.stdin.write("go\n")
            client.stdin.flush()
        counts: list[list[float]] = [json.loads(_line(client)) for client in clients]
    # Only while all of them were at it.
    start, end = max(min(each) for each in counts), min(max(each) for each in counts)
    if end <= start:
        raise NotMeasured("the clients did not overlap; measure for more seconds")
    return sum(start < moment <= end for each in counts for moment in each) * rows / (end - start)


@contextlib.contextmanager
def _client(command: Sequence[str]) -> Iterator[Any]:
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii"
    )
    with client:
        try:
            yield client
        finally:
            client.kill()


def _line(client: Any) -> str:
    line: str = client.stdout.readline()
    if not line:
        raise NotMeasured(f"a client ended with {client.wait()}")
    return line


def load(address: str, request: bytes, seconds: float, connections: int) -> list[float]:
    """Call for that long, once told to; return when each answer came.

    IN_FLIGHT calls at a time on each connection.
    """
    ends: list[float] = []
    options = [("grpc.use_local_subchannel_pool", 1)]
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(connections)
        ]
        for channel in channels:
            channel.unary_unary(RECONSTRUCT)(request, timeout=CALL_TIMEOUT_S)
        print("ready", flush=True)
        sys.stdin.readline()
        last = time.monotonic() + seconds

        def caller(channel: grpc.Channel) -> None:
            call = channel.unary_unary(RECONSTRUCT)
            while not ends or time.monotonic() < last:
                call(request, timeout=CALL_TIMEOUT_S)
                ends.append(time.monotonic())

        threads = [
            threading.Thread(target=caller, args=(channel,))
            for channel in channels
            for _ in range(IN_FLIGHT)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ends


if __name__ == "__main__":
    where, name, row, count, duration, several = sys.argv[1:]
    message = request_of(name, json.loads(row), int(count))
    print(json.dumps(load(where, message, float(duration), int(several))))
