"""Jumps of the wall clock of a server by hours while calls are in flight have no effect.

gRPC sends a deadline as the remaining time (`grpc-timeout`), and its core keeps it on the monotonic
clock. Only grpcio's Python layer converts it to wall-clock time, and the server converts it back at
once. The two conversions must therefore read the same clock.
"""

from __future__ import annotations

import contextlib
import mmap
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from checked_load import CheckedLoad
from latentserve.v1 import generative_service_pb2 as pb
from served import served

COMPILER = shutil.which("cc")
TIMEOUT_S = 30.0
SetClock = Callable[[float], None]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that changes the wall clock of a process."""
    if COMPILER is None:
        pytest.skip("needs a C compiler (cc) for clock.c")
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).parent / "clock.c"
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl", "-lm"]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def set_clock(shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetClock]:
    """Return a function that sets the wall-clock offset, in seconds, of servers started later."""
    path = tmp_path / "offset"
    path.write_bytes(struct.pack("d", 0.0))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("FAULTS_CLOCK", str(path))
    with path.open("r+b") as file, contextlib.closing(mmap.mmap(file.fileno(), 8)) as page:
        yield lambda offset_s: struct.pack_into("d", page, 0, offset_s)


JUMPS_S = (7200.0, -86400.0 * 400, 86400.0 * 365 * 20)


def test_a_jump_of_the_wall_clock_expires_no_call_and_spares_none(
    exports: Path, tmp_path: Path, set_clock: SetClock
) -> None:
    flags = ("--watchdog-s", "5", "--watchdog-exit", "yes")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=0.1) as server,
        server.generative() as stub,
    ):
        for offset_s in JUMPS_S:
            jump_in_the_middle_of_calls(stub, lambda offset_s=offset_s: set_clock(offset_s))
        year = time.gmtime(time.time() + JUMPS_S[-1]).tm_year
        assert server.stop() == 0
    assert f"{year}-" in server.log, "the clock did not jump"
    assert "is stuck" not in server.log
    assert "Traceback" not in server.log


def jump_in_the_middle_of_calls(stub: Any, jump: Callable[[], None]) -> None:
    request = pb.SampleRequest(count=1)
    streamed = pb.SampleStreamRequest(count=3, chunk_rows=1)
    stream = stub.SampleStream(streamed, timeout=TIMEOUT_S)
    next(stream)
    running = stub.Sample.future(request, timeout=TIMEOUT_S)
    queued = stub.Sample.future(request, timeout=TIMEOUT_S)
    jump()
    assert len(list(stream)) == 2
    running.result()
    queued.result()
    stub.Sample(request, timeout=TIMEOUT_S)  # a call that begins after the jump
    with pytest.raises(grpc.RpcError) as caught:
        stub.Sample(request, timeout=0.03)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_clock_that_jumps_all_the_time_disturbs_nobody(
    exports: Path, tmp_path: Path, set_clock: SetClock
) -> None:
    """Forwards and backwards by an hour, thousands of times, to hit a conversion."""
    with served(exports, tmp_path / "log") as server, CheckedLoad(server) as load:
        wanted = load.completed + 1000
        jumps, end = 0, time.monotonic() + TIMEOUT_S
        while load.completed < wanted and not load.failures:
            assert time.monotonic() < end
            jumps += 1
            set_clock((-1) ** jumps * (3600.0 + jumps))
            time.sleep(0.0002)
        load.finish()
