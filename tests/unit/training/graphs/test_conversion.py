import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latentserve_training.errors import ExportError, ParityError
from latentserve_training.graphs import conversion
from latentserve_training.graphs.conversion import (
    check_parity,
    convert,
    inspect,
    strip_local_information,
)
from latentserve_training.graphs.spec import Graph

SHAPE, LATENT_DIM = (1, 4, 4), 3


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, LATENT_DIM)

    def forward(self, images):
        return self.linear(images.flatten(1))


def graph_of(module, outputs=("mean",)):
    return Graph("encode.onnx", module.eval(), "images", outputs, ("encode",))


@pytest.fixture(scope="module")
def encoder():
    graph = graph_of(Encoder())
    return graph, convert(graph, SHAPE, LATENT_DIM)


def copy_of(model):
    duplicate = onnx.ModelProto()
    duplicate.CopyFrom(model)
    return duplicate


def test_names_batch_dimension_and_versions(encoder):
    _, model = encoder
    (images,), (mean,) = model.graph.input, model.graph.output
    assert (images.name, mean.name) == ("images", "mean")
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert mean.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert images.type.tensor_type.elem_type == TensorProto.FLOAT
    assert model.opset_import[0].version == conversion.OPSET_VERSION


def test_no_metadata_of_the_exporting_machine_is_left(encoder):
    _, model = encoder
    serialized = model.SerializeToString()
    for trace in (b"stack_trace", b".py", b"site-packages"):
        assert trace not in serialized, trace


def test_the_same_module_gives_the_same_bytes(encoder):
    _, model = encoder
    again = convert(graph_of(Encoder()), SHAPE, LATENT_DIM)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


def test_torch_and_onnx_runtime_agree_at_every_batch_size(encoder):
    graph, model = encoder
    assert check_parity(model, graph, SHAPE, LATENT_DIM) <= 1e-5


def test_parity_refuses_a_weight_that_is_off(encoder):
    graph, model = encoder
    broken = copy_of(model)
    tensor = next(each for each in broken.graph.initializer if "weight" in each.name)
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    with pytest.raises(ParityError, match="mean at batch 1: torch and ONNX Runtime differ by"):
        check_parity(broken, graph, SHAPE, LATENT_DIM)


def test_parity_refuses_nan(encoder):
    graph, model = encoder
    broken = copy_of(model)
    tensor = next(each for each in broken.graph.initializer if "bias" in each.name)
    nan = np.full(LATENT_DIM, np.nan, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(nan, tensor.name))
    with pytest.raises(ParityError, match="differ by nan"):
        check_parity(broken, graph, SHAPE, LATENT_DIM)


def test_parity_refuses_other_names(encoder):
    graph, model = encoder
    renamed = Graph(graph.file, graph.module, "images", ("latents",), ("encode",))
    with pytest.raises(ParityError, match=r"has the outputs \['mean'\], not \['latents'\]"):
        check_parity(model, renamed, SHAPE, LATENT_DIM)


def test_parity_refuses_another_shape(encoder):
    _, model = encoder

    class Wider(nn.Module):
        def forward(self, images):
            return images.flatten(1)

    with pytest.raises(ParityError, match=r"torch gives \(1, 16\), ONNX Runtime \(1, 3\)"):
        check_parity(model, graph_of(Wider()), SHAPE, LATENT_DIM)


def test_a_module_in_training_mode_is_refused():
    graph = graph_of(Encoder())
    graph.module.train()
    with pytest.raises(ExportError, match="training mode"):
        convert(graph, SHAPE, LATENT_DIM)


class Noisy(Encoder):
    def forward(self, images):
        mean = super().forward(images)
        return mean + torch.randn_like(mean)


def test_a_module_that_generates_random_numbers_is_refused():
    with pytest.raises(ExportError, match=r"generates random numbers .*make the noise an input"):
        convert(graph_of(Noisy()), SHAPE, LATENT_DIM)


class InnerDropout(Encoder):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), training=True)


def test_dropout_that_eval_does_not_reach_is_refused():
    with pytest.raises(ExportError, match="training mode"):
        convert(graph_of(InnerDropout()), SHAPE, LATENT_DIM)


class FixedBatch(Encoder):
    def forward(self, images):
        return super().forward(images)[:2].reshape(2, LATENT_DIM)


def test_a_fixed_batch_is_refused():
    with pytest.raises(ExportError, match="not a dynamic 'batch'"):
        convert(graph_of(FixedBatch()), SHAPE, LATENT_DIM)


def hand_made(nodes, initializer=()):
    batch = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [batch], [out], initializer=list(initializer))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_random_operator_inside_a_branch_is_found():
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    draw = helper.make_node("RandomNormalLike", ["images"], ["y"])
    keep = helper.make_node("Identity", ["images"], ["y"])
    branches = {
        "then_branch": helper.make_graph([draw], "t", [], [out]),
        "else_branch": helper.make_graph([keep], "e", [], [out]),
    }
    condition = numpy_helper.from_array(np.array(True), "condition")
    model = hand_made([helper.make_node("If", ["condition"], ["mean"], **branches)], [condition])
    with pytest.raises(ExportError, match="RandomNormalLike"):
        inspect(model, "encode.onnx")


@pytest.mark.parametrize("where", ["node", "model", "documentation"])
def test_metadata_is_refused_and_stripped(where):
    model = hand_made([helper.make_node("Identity", ["images"], ["mean"])])
    note = "File /home/somebody/model.py, line 3"
    if where == "node":
        helper.set_model_props(model, {})
        model.graph.node[0].metadata_props.add(key="trace", value=note)
    elif where == "model":
        helper.set_model_props(model, {"trace": note})
    else:
        model.graph.node[0].doc_string = note
    with pytest.raises(ExportError, match="metadata of the exporting machine"):
        inspect(model, "encode.onnx")
    strip_local_information(model)
    inspect(model, "encode.onnx")
    assert note.encode() not in model.SerializeToString()


def test_weights_in_another_file_are_refused():
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model = hand_made([helper.make_node("Add", ["images", "w"], ["mean"])], [tensor])
    with pytest.raises(ExportError, match="another file"):
        inspect(model, "encode.onnx")


def test_onnx_runtime_reads_the_file_from_disk(encoder, tmp_path):
    graph, model = encoder
    onnx.save(model, tmp_path / "encode.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encode.onnx"]
    session = onnxruntime.InferenceSession(
        tmp_path / "encode.onnx", providers=["CPUExecutionProvider"]
    )
    (mean,) = session.run(None, {"images": np.zeros((5, *SHAPE), np.float32)})
    np.testing.assert_allclose(mean[0], graph.module.linear.bias.detach(), atol=1e-6)
