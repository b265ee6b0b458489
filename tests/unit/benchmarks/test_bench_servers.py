"""What the benchmark measures with: whole families of processes, and replies that are replies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import h2load
from bench import processes, requests, servers
from bench.models import Model
from bench.requests import WrongReply

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(40_000_000); input()"])
print(child.pid, flush=True)
child.wait()
"""


def test_the_children_of_a_server_are_counted_with_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert processes.process_tree(parent.pid) == [parent.pid, child]
        assert processes.memory_mb([parent.pid, child]) > 0
        assert processes.cpu_s([parent.pid, child]) >= 0
        parent.communicate("\n", timeout=30)
    assert processes.process_tree(child) == [child]
    assert processes.cpu_s([child]) == 0


@pytest.mark.skipif(shutil.which("h2load") is None, reason="H2LOAD IS NOT THERE")
def test_calls_that_are_answered_with_nothing_are_no_good_calls(tmp_path: Path) -> None:
    server = servers.empty("empty call", tmp_path)
    try:
        found = h2load.load(
            server.address, "/reply/500", b"x", calls=50, in_flight=4, reply_bytes=500
        )
        assert 0 < found.p50_us <= found.p99_us
        with pytest.raises(h2load.CallsFailed, match="calls were refused"):
            h2load.load(server.address, "/reply/0", b"x", calls=50, in_flight=4, reply_bytes=500)
    finally:
        server.stop()


def test_a_server_that_exits_is_said_not_to_serve_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model fits')"]
    server = servers.Server("peer", command, servers.free_address(), tmp_path / "log")
    missing = Model(tmp_path, {"name": "m", "image": {"channels": 1, "height": 1, "width": 1}})
    with pytest.raises(servers.NotServing, match="no model fits"):
        server.wait(lambda: requests.prepare(server.address, missing, "Encode", 1, peer=False))


def test_an_answer_that_is_not_that_of_the_graph_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = np.full((2, 3), 0.5, dtype=np.float32)
    monkeypatch.setattr(Model, "expected", lambda *_: expected)
    model = Model(tmp_path, {"name": "m"})
    requests._compare(expected + np.float32(1e-5), model, "Reconstruct", 2)
    with pytest.raises(WrongReply, match=r"off by 0\.1"):
        requests._compare(expected + np.float32(0.1), model, "Reconstruct", 2)
    with pytest.raises(WrongReply, match="off by nan"):
        requests._compare(expected * np.float32(np.nan), model, "Reconstruct", 2)
    with pytest.raises(WrongReply, match=r"\[2, 3\]"):
        requests._compare(expected[:, :2], model, "Reconstruct", 2)
