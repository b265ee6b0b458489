"""Float16 weights and arithmetic, float32 inputs and outputs, and a bounded error."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from latentserve_training.errors import ExportError
from latentserve_training.graphs.conversion import example_input, inspect, run_torch, start_session
from latentserve_training.graphs.float16 import (
    difference_in_float16,
    golden_tolerance,
    to_float16,
)
from latentserve_training.models.registry import KINDS
from latentserve_training.train.loop import build_model


def graph_of(weights, nodes=(), output="y"):
    """A product with `weights`, followed by another operation."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product" if nodes else "y"]), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def weights():
    return np.random.default_rng(1).standard_normal((16, 4)).astype(np.float32)


def test_the_weights_are_half_as_wide_and_both_ends_stay_float32(weights):
    half = to_float16(graph_of(weights), "x.onnx")
    inspect(half, "x.onnx")
    (stored,) = half.graph.initializer
    assert stored.data_type == TensorProto.FLOAT16
    np.testing.assert_array_equal(numpy_helper.to_array(stored), weights.astype(np.float16))
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [node.op_type for node in half.graph.node] == ["Cast", "MatMul", "Cast"]


def test_the_float16_error_is_small_and_above_0(weights):
    x = np.random.default_rng(2).random((5, 16), dtype=np.float32)
    full, half = graph_of(weights), to_float16(graph_of(weights), "x.onnx")
    (expected,) = start_session(full).run(None, {"x": x})
    (found,) = start_session(half).run(None, {"x": x})
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max()
    assert 1e-5 < difference < 1e-2


def test_the_given_graph_is_not_changed(weights):
    full = graph_of(weights)
    before = full.SerializeToString(deterministic=True)
    to_float16(full, "x.onnx")
    assert full.SerializeToString(deterministic=True) == before


def test_the_result_is_reproducible(weights):
    first, second = (to_float16(graph_of(weights), "x.onnx") for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_weights_too_small_for_float16_cause_no_warning(weights):
    weights[0, 0] = 1e-9
    stored = numpy_helper.to_array(to_float16(graph_of(weights), "x.onnx").graph.initializer[0])
    assert abs(stored[0, 0]) < 1e-7


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf, np.nan])
def test_weights_too_large_for_float16_are_refused(weights, value):
    weights[1, 2] = value
    with pytest.raises(ExportError, match=r"x\.onnx: w holds .*65504; export it in float32"):
        to_float16(graph_of(weights), "x.onnx")


def test_operators_missing_in_float16_stay_float32_between_casts(weights):
    count = numpy_helper.from_array(np.array([4], dtype=np.int64), "count")
    full = graph_of(weights, [helper.make_node("TopK", ["product", "count"], ["y", "places"])])
    full.graph.initializer.append(count)
    half = to_float16(full, "x.onnx")
    onnx.checker.check_model(half, full_check=True)
    x = np.random.default_rng(2).random((5, 16), dtype=np.float32)
    expected, found = (start_session(each).run(["y"], {"x": x})[0] for each in (full, half))
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_torch_measures_the_float16_error_of_a_gpu_for_every_kind(kind, make_config):
    model = build_model(make_config(kind), (1, 12, 12)).eval()
    for graph in model.graphs():
        generator = torch.Generator().manual_seed(1)
        inputs = example_input(graph, (1, 12, 12), model.latent_dim, 8, generator)
        before = [weight.dtype for weight in graph.module.parameters()]
        difference = difference_in_float16(graph, inputs.numpy(), list(run_torch(graph, inputs)))
        assert 1e-6 < difference < 5e-3
        assert [weight.dtype for weight in graph.module.parameters()] == before


@pytest.mark.parametrize(
    ("measured", "tolerance"), [(0.0, 1e-3), (1e-4, 1e-3), (0.0021, 0.0084), (0.0249, 0.1)]
)
def test_the_golden_tolerance_follows_what_was_measured(measured, tolerance):
    assert golden_tolerance(measured) == pytest.approx(tolerance, rel=0.06)
    assert golden_tolerance(measured) <= 0.1


@pytest.mark.parametrize("measured", [0.026, 1.0, np.nan, np.inf])
def test_a_model_that_loses_too_much_in_float16_is_refused(measured):
    with pytest.raises(ExportError, match=r"differ by .*Export it in float32"):
        golden_tolerance(measured)
