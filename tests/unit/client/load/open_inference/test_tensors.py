import numpy as np
import pytest

from latentserve_client.load.open_inference import messages_pb2 as pb
from latentserve_client.load.open_inference.tensors import DTYPES, input_array, read_infer, request
from latentserve_client.load.plan.mix import BadMix


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_inputs_of_every_data_type_have_the_right_size(datatype):
    spec = pb.ModelMetadataResponse.TensorMetadata(name="x", datatype=datatype, shape=[-1, 2, -1])
    message = request("m", "", [spec], 5, seed=0)
    assert list(message.inputs[0].shape) == [5, 2, 1]
    assert len(message.raw_input_contents[0]) == 10 * DTYPES[datatype].itemsize
    reply = pb.ModelInferResponse(model_name="m", model_version="1")
    reply.outputs.add(name="y", datatype=datatype, shape=[5, 2, 1])
    reply.raw_output_contents.append(message.raw_input_contents[0])
    parts = read_infer(reply.SerializeToString())
    assert parts["digest"] == "m:1"
    assert parts["output y"].shape == (5, 2, 1)
    assert parts["output y"].tobytes() == message.raw_input_contents[0]


def test_fixed_shapes_accept_no_rows():
    rng = np.random.default_rng(0)
    assert input_array("x", "FP32", [4, 2], 1, rng).shape == (4, 2)
    with pytest.raises(BadMix, match="fixed shape"):
        input_array("x", "FP32", [4, 2], 3, rng)


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("FP32", "fp32_contents", [0.5, 2.0]),
        ("FP64", "fp64_contents", [0.5, 2.0]),
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-3, 4]),
        ("INT64", "int64_contents", [-(2**40), 4]),
        ("UINT16", "uint_contents", [3, 4]),
        ("UINT64", "uint64_contents", [2**60, 4]),
    ],
)
def test_outputs_in_typed_fields_are_read(datatype, field, values):
    reply = pb.ModelInferResponse(model_name="m")
    output = reply.outputs.add(name="y", datatype=datatype, shape=[2])
    getattr(output.contents, field).extend(values)
    found = read_infer(reply.SerializeToString())["output y"]
    assert found.tolist() == values
    assert found.dtype == DTYPES[datatype]


def test_bytes_are_returned_unparsed():
    reply = pb.ModelInferResponse(model_name="m")
    reply.outputs.add(name="y", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    assert read_infer(reply.SerializeToString())["output y"] == (b"a",)
