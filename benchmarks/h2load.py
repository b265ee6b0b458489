"""Loads a gRPC method with `h2load` of nghttp2: a client in C that costs little itself.

Debian and Ubuntu have it in the package nghttp2-client. The request is serialised once.
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
    """Some calls were not answered as expected; the text says what h2load said."""


@dataclass(frozen=True)
class Load:
    """What came of one run: calls per second, the median and the 99th percentile of a call."""

    calls_per_s: float
    p50_us: float
    p99_us: float


def check() -> None:
    """End the program where h2load is not there."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not there; Debian has it in the package nghttp2-client")


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
    """Make `calls` calls of `method`, `in_flight` at a time, spread over the connections.

    Raises CallsFailed where one failed. HTTP knows nothing of gRPC's status, and a refused call
    has an empty body: give `reply_bytes`, what a good reply has at least, to have it found out.
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
                f"{method}: {calls} replies have {data.group(1)} bytes, expected {reply_bytes} "
                "each at least: calls were refused"
            )
        # Each line: the start, the HTTP status, the microseconds.
        times_us = [int(line.split("\t")[2]) for line in log.read_text("ascii").splitlines()]
    p99_us = statistics.quantiles(times_us, n=100, method="inclusive")[98]
    return Load(float(finished.group(1)), statistics.median(times_us), p99_us)
