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

LIMIT_S = 120.0


@dataclass(frozen=True)
class Load:
    """What came of one run: calls per second, and the median time of a call."""

    calls_per_s: float
    p50_us: float


def check() -> None:
    """End the program where h2load is not there."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not there; Debian has it in the package nghttp2-client")


def load(address: str, method: str, request: bytes, *, calls: int, in_flight: int) -> Load:
    """Make `calls` calls of `method` on one connection, `in_flight` at a time.

    Raises SystemExit where one failed. HTTP knows nothing of gRPC's status: make one call with
    a real client before.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(b"\0" + struct.pack(">I", len(request)) + request)
        command = ["h2load", "-c", "1", "-m", str(in_flight), "-n", str(calls), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        command += ["--log-file", str(log), f"http://{address}{method}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
        finished = re.search(r"finished in \S+ ([\d.]+) req/s", ran.stdout)
        if finished is None or f"{calls} succeeded" not in ran.stdout:
            raise SystemExit(f"h2load: calls failed:\n{ran.stdout}\n{ran.stderr}")
        # Each line: the start, the HTTP status, the microseconds.
        times_us = [int(line.split("\t")[2]) for line in log.read_text("ascii").splitlines()]
    return Load(float(finished.group(1)), statistics.median(times_us))
