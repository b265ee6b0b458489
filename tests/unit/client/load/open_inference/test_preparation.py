"""Load on a fake server of the Open Inference Protocol with the replies of Triton."""

import json
from concurrent import futures

import grpc
import numpy as np
import pytest

from latentserve_client.cli import main
from latentserve_client.load.open_inference import messages_pb2 as pb

SHORT = ("--protocol", "oip", "--duration-s", "0.3", "--warm-up-s", "0.1", "--pool", "3")


class OpenInference(grpc.GenericRpcHandler):
    """Returns twice its input `x`, and records the requests."""

    def __init__(self):
        self.seen = []
        self.inputs = [("x", "FP32", [-1, 3])]

    def service(self, details):
        name = details.method.rpartition("/")[2]
        assert details.method == f"/inference.GRPCInferenceService/{name}"
        return grpc.unary_unary_rpc_method_handler(getattr(self, name))

    def ServerMetadata(self, request, context):  # noqa: N802
        return pb.ServerMetadataResponse(name="fake", version="1.2").SerializeToString()

    def ModelMetadata(self, request, context):  # noqa: N802
        asked = pb.ModelMetadataRequest.FromString(request)
        if asked.name != "double":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {asked.name}")
        reply = pb.ModelMetadataResponse(name="double", platform="fake", versions=["1"])
        for name, datatype, shape in self.inputs:
            reply.inputs.add(name=name, datatype=datatype, shape=shape)
        return reply.SerializeToString()

    def ModelInfer(self, request, context):  # noqa: N802
        asked = pb.ModelInferRequest.FromString(request)
        self.seen.append(asked)
        shape = asked.inputs[0].shape
        x = np.frombuffer(asked.raw_input_contents[0], "<f4").reshape(shape)
        reply = pb.ModelInferResponse(model_name="double", model_version="1")
        reply.outputs.add(name="y", datatype="FP32", shape=shape)
        reply.raw_output_contents.append((2 * x).tobytes())
        return reply.SerializeToString()


@pytest.fixture
def handler():
    return OpenInference()


@pytest.fixture
def address(handler):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_builds_requests_from_the_metadata(address, handler, capsys):
    mix = "infer=2:rows=1-4,infer:model=double@1"
    argv = ["load", "--server", address, *SHORT, "--model", "double", "--mix", mix, "--json"]
    assert main([*argv, "--validate", "100%"]) == 0
    report = json.loads(capsys.readouterr().out)
    (run,) = report["runs"]
    assert [kind["label"] for kind in run["kinds"]] == [
        "infer double rows=1-4",
        "infer double:1 rows=1",
    ]
    assert run["errors"] == 0
    assert run["rows_per_s"] > run["rate_per_s"]
    assert run["validation"]["checked"] > 3
    assert run["validation"]["wrong"] == 0
    assert "double (fake, x FP32 [-1, 3])" in report["server"]["models"]
    assert "served by fake 1.2" in report["server"]["models"]
    assert {len(seen.raw_input_contents[0]) for seen in handler.seen} >= {12, 48}
    assert {seen.model_version for seen in handler.seen} == {"", "1"}


def test_a_wrong_reply_fails_the_run(address, handler, capsys):
    right = handler.ModelInfer

    def sometimes(request, context):
        reply = right(request, context)
        if len(handler.seen) > 10 and len(handler.seen) % 5 == 0:
            message = pb.ModelInferResponse.FromString(reply)
            message.raw_output_contents[0] = bytes(len(message.raw_output_contents[0]))
            return message.SerializeToString()
        return reply

    handler.ModelInfer = sometimes
    argv = ["load", "--server", address, *SHORT, "--model", "double", "--validate", "100%"]
    assert main(argv) == 1
    assert "output y: differs by up to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ((), 1, "no model given"),
        (("--model", "nope"), 1, "unknown model nope"),
        (("--model", "double", "--mix", "encode"), 2, "expected one of infer"),
    ],
)
def test_invalid_options_are_reported_before_the_load(address, handler, capsys, argv, code, said):
    assert main(["load", "--server", address, *SHORT, *argv]) == code
    assert said in capsys.readouterr().err
    assert handler.seen == []


def test_an_unsupported_input_is_reported(address, handler, capsys):
    handler.inputs = [("text", "BYTES", [-1])]
    assert main(["load", "--server", address, *SHORT, "--model", "double"]) == 1
    assert "the input 'text' has data type BYTES; supported: BOOL" in capsys.readouterr().err
