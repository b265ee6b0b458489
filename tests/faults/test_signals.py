"""Signals at awkward moments: before the start, in storms, with engines and workers that hang."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from served import BEFORE_ANY_TRANSPORT, EITHER_TRANSPORT, launched, served
from vitals import eventually, state

# Runs the server as `python -m latentserve_server` does, with a pause in its imports.
PAUSED_IMPORTS = """
import runpy, sys, time
from pathlib import Path

class Pause:
    def find_spec(self, name, path, target=None):
        if name == "latentserve_server.config":
            print("importing", flush=True)
            while not Path(sys.argv[-1]).exists():
                time.sleep(0.01)

sys.meta_path.insert(0, Pause())
runpy.run_module("latentserve_server", run_name="__main__", alter_sys=True)
"""


def loop_for_ever(folder: Path) -> None:
    """Change the decoder of a tiny model: it does not end if a latent is above 100."""
    path = folder / "decode.onnx"
    model = onnx.load(path)
    graph = model.graph
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["next_condition"]),
            helper.make_node("Add", ["value", "value"], ["next_value"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("next_condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_value", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["latents"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "hundred"], ["hangs"]),
        helper.make_node("Loop", ["", "hangs", "zero"], ["nothing"], body=body),
        helper.make_node("Add", ["logits", "nothing"], ["looped"]),
    ]
    before = list(graph.node)
    del graph.node[:]
    for node in before:
        node.input[:] = ["looped" if name == "logits" else name for name in node.input]
    graph.node.extend([before[0], *nodes, *before[1:]])
    for name, value in (("hundred", 100.0), ("zero", 0.0)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    tiny_models.write_manifest(folder, tiny_models.read_manifest(folder))


def test_an_engine_that_never_ends_does_not_abort_the_exit(tmp_path: Path) -> None:
    """The libraries' exit handlers would destroy the session while the graph runs."""
    exports = tmp_path / "exports"
    loop_for_ever(tiny_models.write_model(exports, "tiny-ae", kind="autoencoder"))
    latents = np.full((1, tiny_models.DIM), 1000.0, dtype=np.float32)
    request = pb.DecodeRequest(
        latents=tensor_pb2.Tensor(
            data_type=tensor_pb2.DATA_TYPE_FLOAT32,
            shape=latents.shape,
            data=latents.tobytes(),
        )
    )
    with (
        served(exports, tmp_path / "log", "--grace-s", "0.1") as server,
        server.generative() as stub,
    ):
        with pytest.raises(grpc.RpcError):
            stub.Decode(request, timeout=1.0)
        assert server.stop() == 0
        assert "terminate called" not in server.log


@BEFORE_ANY_TRANSPORT
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_imports_ends_the_process_in_order(
    number: signal.Signals, exports: Path, tmp_path: Path
) -> None:
    program = ("-c", PAUSED_IMPORTS)
    never = str(tmp_path / "never")
    with launched(exports, tmp_path / "log", "--token-file", never, program=program) as server:
        server.wait_for_log("importing")
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        assert f"stopped by {number.name} before the start" in server.log


@BEFORE_ANY_TRANSPORT
def test_a_reload_signal_during_the_imports_is_ignored(exports: Path, tmp_path: Path) -> None:
    switch = tmp_path / "token"
    flags = ("--allow-plaintext-token", "yes", "--token-file", str(switch))
    program = ("-c", PAUSED_IMPORTS)
    with launched(exports, tmp_path / "log", *flags, program=program) as server:
        server.wait_for_log("importing")
        server.process.send_signal(signal.SIGHUP)
        switch.write_text("token")
        server.wait_until_serving()
        assert server.stop() == 0


@EITHER_TRANSPORT
def test_many_reload_signals_share_one_further_reload(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", warm_up_delay_s=1.0) as server:
        tiny_models.write_model(exports, "tiny-vae", version=2)
        for _ in range(100):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        server.wait_for_log("reload: tiny-vae version 2 unchanged")
        assert server.stop() == 0
        assert server.log.count("reload: tiny-vae version 2") == 2


@EITHER_TRANSPORT
def test_a_frozen_worker_and_many_reload_signals_do_not_block_the_supervisor(
    exports: Path, tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", "--workers", "2") as server:
        frozen = server.worker_pids()[1]
        os.kill(frozen, signal.SIGSTOP)
        try:
            eventually(lambda: state(frozen) == "T")
            # Without a limit, their messages fill the channel of the frozen worker.
            for _ in range(4000):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(0.0003)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log(r"worker 2 \(process \d+\) ended with exit status 0")
        finally:
            os.kill(frozen, signal.SIGCONT)
        assert server.process.wait(20) == 0
        assert server.log.count("SIGHUP: all workers reload") <= 2
