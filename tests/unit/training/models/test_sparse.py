import math

import pytest
import torch

from latentserve_training.graphs.conversion import check_parity, convert, start_session
from latentserve_training.models.sparse import (
    SparseAutoencoder,
    SparseConfig,
    activity_divergence,
    keep_largest,
)
from latentserve_training.nn.losses import squared_error
from latentserve_training.optim.optimizer import OptimizerConfig

SPARSITIES = ["top_k", "l1", "kl"]
SHAPE = (1, 4, 8)
UNITS = 20


def build(sparsity="top_k", **fields):
    torch.manual_seed(0)
    fields = {"latent_dim": UNITS, "active": 3, "anneal_steps": 0} | fields
    return SparseAutoencoder(SHAPE, SparseConfig(sparsity=sparsity, **fields))


def images(count=64):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def trained(model, steps=150):
    config = OptimizerConfig(learning_rate=1e-2)
    optimizers, generator = model.optimizers(config), torch.Generator()
    for _ in range(steps):
        losses = model.training_step(images(), optimizers, generator, config)
    return losses


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_shapes_and_range(sparsity):
    model = build(sparsity)
    code = model.encode(images(7))
    assert code.shape == (7, UNITS)
    decoded = model.decode(10 * code)
    assert decoded.shape == (7, *SHAPE)
    assert 0 <= decoded.min() < decoded.max() <= 1


def test_the_largest_are_kept_as_they_are():
    inputs = torch.tensor([[0.5, -1.0, 2.0, 1.0], [-4.0, -2.0, -3.0, -1.0]])
    expected = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, -2.0, 0.0, -1.0]])
    torch.testing.assert_close(keep_largest(inputs, 2), expected)
    torch.testing.assert_close(keep_largest(inputs, 4), inputs)


def test_top_k_leaves_exactly_k_active_units():
    model = build(active=3)
    assert ((model.encode(images()) != 0).sum(1) == 3).all()
    trained(model)
    assert ((model.encode(images()) != 0).sum(1) == 3).all()


def test_k_falls_during_training_and_is_restored_from_a_checkpoint():
    model = build(active=3, anneal_steps=10)
    seen = []
    for _ in range(12):
        seen.append(model.annealed_active())
        trained(model, steps=1)
    assert seen[0] == UNITS
    assert seen[-2:] == [3, 3]
    assert seen == sorted(seen, reverse=True)
    resumed = build(active=3, anneal_steps=10)
    resumed.load_state_dict(model.state_dict())
    assert resumed.annealed_active() == 3


def test_k_may_start_below_all_units():
    model = build(active=3, anneal_from=7, anneal_steps=4)
    assert model.annealed_active() == 7
    trained(model, steps=2)
    assert model.annealed_active() == 5


def test_decode_and_encode_use_the_final_k_during_training():
    model = build(active=3, anneal_steps=10)
    assert ((model.encode(images()) != 0).sum(1) == 3).all()
    before = model.losses(images(), torch.Generator())["loss"]
    after = model.eval().losses(images(), torch.Generator())["loss"]
    expected = squared_error(model.reconstruct(images()), images()).mean()
    torch.testing.assert_close(after, expected)
    assert not torch.isclose(before, after), "k is annealed in training only"


def test_the_divergence_is_that_of_bernoulli_distributions():
    coins = torch.distributions.Bernoulli
    mean = torch.tensor([0.01, 0.2, 0.9])
    expected = torch.distributions.kl_divergence(coins(0.2), coins(mean)).sum()
    torch.testing.assert_close(activity_divergence(0.2, mean), expected)
    assert activity_divergence(0.2, torch.tensor([0.2])).item() == pytest.approx(0, abs=1e-7)
    assert math.isfinite(activity_divergence(0.2, torch.tensor([0.0, 1.0])).item())


def test_the_divergence_has_the_gradient_of_finite_differences():
    mean = torch.tensor([0.01, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: activity_divergence(0.1, each), mean)


def test_kl_trains_units_to_the_target_activity():
    model = build("kl", penalty_weight=30.0, target_activity=0.2)
    trained(model, steps=300)
    activity = model.encode(images()).mean(0)
    torch.testing.assert_close(activity, torch.full((UNITS,), 0.2), atol=0.02, rtol=0)


def test_l1_makes_units_inactive():
    def awake(penalty_weight):
        model = build("l1", penalty_weight=penalty_weight)
        trained(model)
        return (model.encode(images()) > 1e-3).double().mean().item()

    assert awake(1.0) < 0.5 * awake(0.0)


def test_l1_is_not_reduced_by_small_latents_with_large_weights():
    model = build("l1")
    before = model.encode(images())
    with torch.no_grad():
        model.layer.rows *= 7.0
    torch.testing.assert_close(model.layer.weight.norm(dim=1), torch.ones(UNITS))
    torch.testing.assert_close(model.encode(images()), before)


@pytest.mark.parametrize("sparsity", ["l1", "kl"])
def test_the_loss_is_the_error_and_the_weighted_penalty(sparsity):
    model = build(sparsity, penalty_weight=0.3, target_activity=0.1)
    losses = model.losses(images(), torch.Generator())
    code = model.encode(images())
    penalty = code.sum(1).mean() if sparsity == "l1" else activity_divergence(0.1, code.mean(0))
    error = squared_error(model.reconstruct(images()), images()).mean()
    torch.testing.assert_close(losses["penalty"], penalty)
    torch.testing.assert_close(losses["loss"], error + 0.3 * penalty)


def test_a_linear_output_is_centred_and_clipped_only_where_it_is_served():
    model = build(output="linear")
    pixels = (255 * images()).byte()
    model.initialise_from_data(pixels)
    mean = pixels.float().mean(0) / 255
    zeros = torch.zeros(1, UNITS)
    torch.testing.assert_close(model.decode(zeros)[0], mean)
    torch.testing.assert_close(
        model.layer.encode(images() - mean).topk(3).values.sort().values,
        model.encode(images()).sort().values[:, -3:],
    )
    codes = 10 * torch.randn(5, UNITS, generator=torch.Generator().manual_seed(2))
    expected = (codes @ model.layer.weight).unflatten(1, SHAPE) + mean
    assert expected.min() < 0 < 1 < expected.max()
    torch.testing.assert_close(model.decode_raw(codes), expected)
    torch.testing.assert_close(model.decode(codes), expected.clamp(0, 1))


def test_a_linear_output_is_not_clipped_in_training():
    model = build(output="linear")
    with torch.no_grad():
        model.layer.pixel_bias += 5.0  # far above white
    loss = model.losses(images(), torch.Generator())["loss"]
    (gradient,) = torch.autograd.grad(loss, model.layer.pixel_bias)
    assert (gradient > 0).all()


def test_the_probe_gets_more_units_than_are_served():
    model = build(active=3, probe_active=8)
    features, code = model.probe_features(images()), model.encode(images())
    assert ((features != 0).sum(1) == 8).all()
    assert torch.equal(features[code != 0], code[code != 0])
    assert torch.equal(build(active=3).probe_features(images()), build(active=3).encode(images()))


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_graph_gives_what_torch_gives(sparsity, output):
    model = build(sparsity, active=3, output=output)
    model.initialise_from_data((255 * images()).byte())
    graph = next(each for each in model.graphs() if each.file == "encode.onnx").evaluating()
    proto = convert(graph, SHAPE, UNITS)
    assert check_parity(proto, graph, SHAPE, UNITS) < 1e-6
    (result,) = start_session(proto).run(None, {"images": images(9).numpy()})
    if sparsity == "top_k":
        assert ((result != 0).sum(1) == 3).all()
        # k is a number in the graph, not something computed from the batch.
        (top_k,) = (node for node in proto.graph.node if node.op_type == "TopK")
        constants = {each.name for each in proto.graph.initializer}
        assert top_k.input[1] in constants


@pytest.mark.parametrize(
    "fields",
    [
        {"latent_dim": 0},
        {"active": 0},
        {"active": UNITS + 1},
        {"probe_active": UNITS + 1},
        {"probe_active": -1},
        {"anneal_from": 2},
        {"anneal_from": UNITS + 1},
        {"anneal_steps": -1},
        {"penalty_weight": -0.1},
        {"target_activity": 1.0},
    ],
)
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        SparseConfig(**{"latent_dim": UNITS, "active": 3} | fields)


def test_more_active_units_than_there_are_do_not_matter_without_top_k():
    assert SparseConfig(latent_dim=5, sparsity="l1").latent_dim == 5
