import copy

import pytest
import torch

from latentserve_training.errors import NonFiniteLossError
from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.models.registry import KINDS, kind_of
from latentserve_training.models.vae_gan import VAEGAN, Terms, VAEGANConfig, relative_error
from latentserve_training.nn.adversarial_losses import discriminator_loss, equilibrium_rule
from latentserve_training.optim.optimizer import OptimizerConfig

SHAPE = (1, 4, 8)
NETWORKS = ("encoder", "decoder", "discriminator")
CONFIG = OptimizerConfig(learning_rate=1e-2)
NO_PENALTY = torch.zeros(())


def build(shape=SHAPE, **fields):
    torch.manual_seed(0)
    fields = {
        "latent_dim": 3,
        "channels": (3,),
        "discriminator_channels": (3,),
        "discriminator_hidden": (4,),
        "pixel_steps": 0,
    } | fields
    return VAEGAN(shape, VAEGANConfig(**fields))


def images(count, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def terms_of(model, batch, seed=2):
    return model.terms(batch, torch.Generator().manual_seed(seed))


def gradients(term, network):
    """∂term/∂weights as one vector; weights that it does not depend on count as zero."""
    weights = list(network.parameters())
    found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(weight) if each is None else each).flatten()
            for weight, each in zip(weights, found, strict=True)
        ]
    )


def routed(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("objective", ["minimax", "non_saturating"])
def test_each_network_gets_the_terms_that_algorithm_1_gives_it(objective, layer, share):
    gamma = 0.7
    model = build(loss=objective, feature_layer=layer, gamma=gamma, pixel_share=share).double()
    terms = terms_of(model, images(5).double())
    by_term = {
        name: {network: gradients(term, getattr(model, network)) for network in NETWORKS}
        for name, term in [
            ("prior", terms.prior),
            ("likelihood", terms.likelihood),
            ("gan", terms.gan),
            ("generator_cost", terms.generator_cost),
        ]
    }
    model.route_gradients(terms, NO_PENALTY.double())
    expected = {
        "encoder": by_term["prior"]["encoder"] + by_term["likelihood"]["encoder"],
        "decoder": gamma * by_term["likelihood"]["decoder"] + by_term["generator_cost"]["decoder"],
        "discriminator": by_term["gan"]["discriminator"],
    }
    for network, gradient in expected.items():
        torch.testing.assert_close(routed(getattr(model, network)), gradient)
    # What was left out is not zero of itself: L_GAN reaches the encoder, L_llike the discriminator.
    assert by_term["gan"]["encoder"].norm() > 0
    assert by_term["likelihood"]["discriminator"].norm() > 0
    if objective == "minimax":  # γ L_llike − L_GAN, to the letter
        letter = gamma * by_term["likelihood"]["decoder"] - by_term["gan"]["decoder"]
        torch.testing.assert_close(routed(model.decoder), letter)


def printed_gan(model, batch):
    """L_GAN as printed in Algorithm 1, of the same images: log Dis(X) + log(1 − Dis(X̃)) + …"""
    terms = terms_of(model, batch)
    return (-terms.real - terms.fake).item()


def test_the_discriminator_raises_the_printed_l_gan_and_the_decoder_lowers_it():
    """A descent of L_GAN with the printed sign would do the opposite of both."""
    batch, rate = images(16), 1e-2
    for network, better in [("discriminator", 1.0), ("decoder", -1.0)]:
        model = build(gamma=0.0, loss="minimax")
        before = printed_gan(model, batch)
        model.route_gradients(terms_of(model, batch), NO_PENALTY)
        torch.optim.SGD(getattr(model, network).parameters(), rate).step()
        assert better * (printed_gan(model, batch) - before) > 0, network


def test_the_discriminator_sees_images_reconstructions_and_samples():
    model, batch = build(), images(6)
    terms = terms_of(model, batch)
    mean, log_variance = model.encoder(batch).chunk(2, dim=1)
    noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2))
    reconstructions = torch.sigmoid(model.decoder(mean + (0.5 * log_variance).exp() * noise[0]))
    samples = torch.sigmoid(model.decoder(noise[1]))
    judged = model.discriminator_logits(batch)
    expected = 0.5 * (
        discriminator_loss(judged, model.discriminator_logits(reconstructions))
        + discriminator_loss(judged, model.discriminator_logits(samples))
    )
    torch.testing.assert_close(terms.gan, expected)


def test_the_relative_error_does_not_depend_on_the_scale():
    generator = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(2, 400, 7, generator=generator).double()
    guess = truth + 0.5 * noise
    assert relative_error(truth.mean(0), truth).item() == pytest.approx(1.0, rel=1e-4)
    assert relative_error(guess, truth).item() == pytest.approx(0.25, rel=0.1)
    scaled = relative_error(50.0 * guess, 50.0 * truth)
    assert scaled.item() == pytest.approx(relative_error(guess, truth).item(), rel=1e-4)


def test_the_likelihood_is_a_gaussian_of_so_many_pixels():
    model, batch = build(feature_sigma=0.5, feature_layer=2), images(6)
    mean, log_variance = model.encoder(batch).chunk(2, dim=1)
    noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2))
    rebuilt = torch.sigmoid(model.decoder(mean + (0.5 * log_variance).exp() * noise[0]))
    pair = [model.discriminator(each, 2)[0] for each in (rebuilt, batch)]
    expected = 0.5 * 32 * relative_error(*pair) / 0.5**2
    torch.testing.assert_close(terms_of(model, batch).likelihood, expected)


def test_pixels_are_compared_at_first():
    model = build(pixel_steps=10, pixel_share=0.2)
    shares = []
    for step in (0, 5, 10, 50):
        model.steps.fill_(step)
        shares.append(model.pixel_share())
    assert shares == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert build(pixel_steps=0, pixel_share=0.2).pixel_share() == 0.2


def test_while_pixels_are_compared_features_do_not_matter():
    batch = images(5)
    one, other = (build(pixel_steps=10, feature_layer=layer) for layer in (1, 2))
    assert terms_of(one, batch).likelihood.item() == terms_of(other, batch).likelihood.item()


def changed(before, model):
    return {
        name.partition(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(before[name], value)
    }


def step(model, batch):
    optimizers = model.optimizers(CONFIG)
    return model.training_step(batch, optimizers, torch.Generator().manual_seed(2), CONFIG)


def test_a_step_trains_all_three():
    model = build()
    before = copy.deepcopy(model.state_dict())
    losses = step(model, images(6))
    assert changed(before, model) >= {*NETWORKS, "averaged_encoder", "averaged_decoder", "steps"}
    assert set(losses) == set(model.losses(images(6), torch.Generator()))


@pytest.mark.parametrize(("real", "fake"), [(0.68, 0.68), (0.1, 0.68), (0.68, 1.2), (0.1, 1.2)])
def test_the_equilibrium_rule_uses_this_batch(real, fake):
    zero = torch.zeros(())
    terms = Terms(zero, zero, torch.tensor(real), torch.tensor(fake), zero, zero)
    assert build().networks_to_update(terms) == (True, True)  # the rule is off
    assert build(equilibrium_margin=0.3).networks_to_update(terms) == equilibrium_rule(
        real, fake, 0.3
    )


@pytest.mark.parametrize("train", [(True, False), (False, True)])
def test_a_network_that_is_far_ahead_is_not_trained(train):
    model = build()
    model.due = lambda terms: train
    before = copy.deepcopy(model.state_dict())
    step(model, images(6))
    trained = changed(before, model)
    assert ("discriminator" in trained, "decoder" in trained) == train
    assert "encoder" in trained


@pytest.mark.parametrize("broken", NETWORKS)
def test_a_gradient_that_is_not_finite_changes_nothing(broken):
    """No network changes, not even those with a finite gradient."""
    model = build()
    weights = next(getattr(model, broken).parameters())
    original = model.route_gradients

    def break_one(terms, penalty):
        original(terms, penalty)
        weights.grad[0] = float("nan")

    model.route_gradients = break_one
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match=f"the gradient of the {broken} is not finite"):
        step(model, images(6))
    assert changed(before, model) == set()


def test_a_term_that_is_not_finite_changes_nothing():
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan \(discriminator_loss\)"):
        step(model, torch.full((4, *SHAPE), float("nan")))
    assert changed(before, model) == set()


def test_validation_measures_samples_and_reconstructions(image_data):
    model = build(image_data.image_shape).eval()
    model.initialise_from_data(image_data.train)
    with torch.inference_mode():
        losses = model.validation_losses(image_data.validation, seed=0)
        inputs = image_data.validation.float() / 255.0
        error = (model.reconstruct(inputs) - inputs).square().sum().item() / len(inputs)
    assert losses["squared_error"] == pytest.approx(error, rel=1e-5)
    assert losses["loss"] == losses["frechet_distance"]
    assert losses["kl"] > 0


@pytest.mark.parametrize("shape", [(1, 8, 4), (3, 4, 4)])
def test_the_exports_are_those_of_a_vae(shape):
    model = build(shape, spectral_norm=True)
    operations = set()
    for graph in model.graphs():
        proto = convert(graph.evaluating(), shape, 3)
        assert check_parity(proto, graph, shape, 3) < 1e-6
        operations |= set(graph.operations)
    assert operations == {"encode", "decode", "reconstruct", "sample"}


def test_the_reference_vae_has_the_same_networks():
    config = VAEGANConfig(latent_dim=3, channels=(3, 4))
    twin = config.plain_vae()
    model = VAEGAN(SHAPE, config)
    vae = KINDS[kind_of(twin)].build(SHAPE, twin)
    assert vae.kind == "vae"
    for network in ("encoder", "decoder"):
        ours, theirs = (getattr(each, network).state_dict() for each in (model, vae))
        assert {name: value.shape for name, value in ours.items()} == {
            name: value.shape for name, value in theirs.items()
        }


@pytest.mark.parametrize(
    "fields",
    [
        {"latent_dim": 0},
        {"feature_layer": 0},
        {"feature_layer": 4},
        {"feature_sigma": 0.0},
        {"gamma": -1.0},
        {"pixel_share": 1.5},
        {"pixel_steps": -1},
        {"equilibrium_margin": -0.1},
    ],
)
def test_impossible_values_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        VAEGANConfig(**fields)
