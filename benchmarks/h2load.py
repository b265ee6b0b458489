"""Load on a gRPC method with `h2load` of nghttp2, a client in C with a low overhead.

Debian and Ubuntu have it in the package nghttp2-client. The request is serialized once.
"""

from __future__ import annotations

import re
import shutil
import statistics
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120.0


class CallsFailed(Exception):
    """Some calls failed; the text has the output of h2load."""


@dataclass(frozen=True)
class Load:
    """Result of one run: calls per second, median and 99th percentile of the call duration."""

    calls_per_s: float
    p50_us: float
    p99_us: float


def check() -> None:
    """Exit if h2load is not installed."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed; Debian has it in the package nghttp2-client")


def load(
    address: str,
    method: str,
    request: bytes,
    *,
    calls: int,
    in_flight: int,
    connections: int = 1,
    reply_bytes: int = 0,
) -> Load:
    """Make `calls` calls of `method`, `in_flight` at a time, distributed over the connections.

    Raises CallsFailed if a call failed. h2load checks only the HTTP status, not that of gRPC, and
    a refused call has an empty body: `reply_bytes`, the minimum size of a correct reply, detects
    refused calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(b"\0" + struct.pack(">I", len(request)) + request)
        streams = max(1, in_flight // connections)
        command = ["h2load", "-c", str(connections), "-m", str(streams), "-n", str(calls)]
        command += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        command += ["--log-file", str(log), f"http://{address}{method}"]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
            )
        except subprocess.SubprocessError as error:
            raise CallsFailed(f"h2load: {error}") from error
        finished = re.search(r"finished in \S+ ([\d.]+) req/s", ran.stdout)
        data = re.search(r"\((\d+)\) data", ran.stdout)
        if finished is None or data is None or f" {calls} succeeded" not in ran.stdout:
            raise CallsFailed(f"h2load: calls failed:\n{ran.stdout}\n{ran.stderr}")
        if int(data.group(1)) < calls * reply_bytes:
            raise CallsFailed(
                f"{method}: {calls} replies have {data.group(1)} bytes, expected at least "
                f"{reply_bytes} each: calls were refused"
            )
        # Each line has the start time, the HTTP status and the microseconds.
        times_us = [int(line.split("\t")[2]) for line in log.read_text("ascii").splitlines()]
    p99_us = statistics.quantiles(times_us, n=100, method="inclusive")[98]
    return Load(float(finished.group(1)), statistics.median(times_us), p99_us)
