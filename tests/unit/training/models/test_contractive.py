import pytest
import torch

from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.models.contractive import ContractiveAutoencoder, ContractiveConfig
from latentserve_training.nn.losses import squared_error
from latentserve_training.optim.optimizer import OptimizerConfig

ENCODERS = ["one_layer", "convolutional"]
SHAPE = (1, 4, 8)


def build(encoder="one_layer", **fields):
    torch.manual_seed(0)
    config = ContractiveConfig(latent_dim=5, channels=(3,), encoder=encoder, **fields)
    return ContractiveAutoencoder(SHAPE, config)


def images(count):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)).double()


def autograd_norms(model, batch):
    """‖J‖² of each image from the whole Jacobian."""

    def jacobian_norm(image):
        jacobian = torch.autograd.functional.jacobian(lambda x: model.encode(x[None])[0], image)
        return jacobian.square().sum()

    return torch.stack([jacobian_norm(image) for image in batch])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_exact_norm_is_that_of_the_whole_jacobian(encoder):
    model, batch = build(encoder).double(), images(6)
    expected = autograd_norms(model, batch)
    torch.testing.assert_close(model.jacobian_norm(batch), expected, rtol=1e-5, atol=0)
    with torch.inference_mode():  # as measured
        torch.testing.assert_close(model.jacobian_norm(batch), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_hutchinsons_estimate_is_unbiased(encoder):
    model, batch = build(encoder).double(), images(3)
    generator = torch.Generator().manual_seed(2)
    draws = torch.stack([model.estimate_jacobian_norm(batch, generator) for _ in range(2000)])
    standard_error = draws.std(0) / len(draws) ** 0.5
    difference = (draws.mean(0) - autograd_norms(model, batch)).abs()
    assert (difference < 3 * standard_error).all()
    assert (standard_error > 0).all()


def test_more_probes_vary_less():
    batch = images(200)

    def spread(probes):
        model = build("convolutional", probes=probes).double()
        estimate = model.estimate_jacobian_norm(batch, torch.Generator().manual_seed(3))
        return (estimate - model.jacobian_norm(batch)).square().mean().item()

    assert spread(16) == pytest.approx(spread(1) / 16, rel=0.5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_loss_is_the_error_and_the_weighted_norm(encoder):
    model, batch = build(encoder, penalty_weight=0.3, probes=3).double(), images(7)
    losses = model.losses(batch, torch.Generator().manual_seed(4))
    error = squared_error(model.reconstruct(batch), batch).mean()
    if encoder == "one_layer":
        norm = model.jacobian_norm(batch).mean()
    else:
        norm = model.estimate_jacobian_norm(batch, torch.Generator().manual_seed(4)).mean()
    torch.testing.assert_close(losses["squared_error"], error)
    torch.testing.assert_close(losses["jacobian"], norm)
    torch.testing.assert_close(losses["loss"], error + 0.3 * norm)


def test_the_penalty_has_the_gradient_of_the_closed_form():
    # Both of a one-layer encoder: the estimate, which other encoders use, and the formula.
    model, batch = build(probes=4000).double(), images(2)
    weight = model.network.rows
    (exact,) = torch.autograd.grad(model.jacobian_norm(batch).sum(), weight)
    estimate = model.estimate_jacobian_norm(batch, torch.Generator().manual_seed(5)).sum()
    (estimated,) = torch.autograd.grad(estimate, weight)
    assert (estimated - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_larger_penalty_contracts_more(encoder):
    config = OptimizerConfig(learning_rate=1e-2)

    def trained_norm(penalty_weight):
        model, batch = build(encoder, penalty_weight=penalty_weight), images(32).float()
        optimizers, generator = model.optimizers(config), torch.Generator().manual_seed(6)
        for _ in range(60):
            model.training_step(batch, optimizers, generator, config)
        return model.jacobian_norm(batch).mean().item()

    assert trained_norm(1.0) < 0.5 * trained_norm(0.1) < 0.5 * trained_norm(0.0)


def test_the_reference_differs_by_the_penalty_alone():
    config = ContractiveConfig(latent_dim=5, probes=2)
    plain = ContractiveConfig(latent_dim=5, probes=2, penalty_weight=0.0)
    assert config.without_penalty() == plain


@pytest.mark.parametrize("encoder", ENCODERS)
def test_latents_are_activations(encoder):
    code = build(encoder).double().encode(10 * images(4))
    assert code.shape == (4, 5)
    assert 0 < code.min() < code.max() < 1


def test_the_graph_of_a_deep_encoder_holds_no_penalty():
    model = build("convolutional")
    graph = next(each for each in model.graphs() if each.file == "encode.onnx").evaluating()
    proto = convert(graph, SHAPE, 5)
    assert check_parity(proto, graph, SHAPE, 5) < 1e-6
    assert len(proto.graph.node) < 10


@pytest.mark.parametrize("fields", [{"latent_dim": 0}, {"probes": 0}, {"penalty_weight": -0.1}])
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ContractiveConfig(**fields)
