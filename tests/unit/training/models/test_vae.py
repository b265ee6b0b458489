import math

import pytest
import torch

from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.models.vae import LOG_VARIANCE_LIMIT, VAE, VAEConfig, with_free_bits
from latentserve_training.nn.likelihoods import MINIMUM_SIGMA
from latentserve_training.nn.losses import kl_to_standard_normal, log_prior_over_posterior
from latentserve_training.optim.optimizer import OptimizerConfig

SHAPE = (1, 4, 4)
BITS = {"likelihood": "bernoulli", "binarisation": "dynamic"}
IWAE = {"objective": "iwae", "samples": 3}
LINEAR = {"network": "mlp", "hidden": (), "output": "linear"}
VARIANTS = {
    "gaussian": {"network": "conv", "channels": (3,)},
    "optimal": {"sigma_mode": "optimal", "samples": 2},
    "linear": LINEAR,
    "bernoulli": BITS | {"free_bits": 0.1},
    "iwae": BITS | IWAE,
}


def build(**fields):
    torch.manual_seed(0)
    small = {"latent_dim": 2, "network": "mlp", "hidden": (3,), "initial_sigma": 0.25}
    return VAE(SHAPE, VAEConfig(**(small | fields)))


@pytest.fixture
def images():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(7))


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_equal_finite_differences(fields, images):
    vae = build(**fields).double()
    names = [name for name, _ in vae.named_parameters()]

    def loss(*parameters):
        state = {f"vae.{name}": each for name, each in zip(names, parameters, strict=True)}
        # The same noise at every evaluation; otherwise the differences would come from the samples.
        return torch.func.functional_call(Losses(vae), state, (images[:2].double(), seeded(5)))

    parameters = [each.detach().clone().requires_grad_() for each in vae.parameters()]
    assert torch.autograd.gradcheck(loss, parameters)


class Losses(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, images, generator):
        return self.vae.losses(images, generator)["loss"]


def by_hand(vae, images, generator):
    """log p(x|z) and log weights, ``[K, n]``, and the KL ``[n]``, for the samples of the losses."""
    mean, log_variance = vae.encode(images)
    latents = vae.reparameterize(mean, log_variance, vae.config.samples, generator)
    log_likelihood = torch.stack(
        [vae.observation.log_likelihood(vae.decoder(draw), images)[0][0] for draw in latents]
    )
    log_ratio = log_prior_over_posterior(latents, mean, log_variance)
    return log_likelihood, log_likelihood + log_ratio, kl_to_standard_normal(mean, log_variance)


@pytest.mark.parametrize("samples", [1, 4])
def test_the_loss_is_minus_the_elbo_averaged_over_samples(samples, images):
    vae = build(samples=samples)
    losses = vae.losses(images, seeded())
    log_likelihood, _, kl = by_hand(vae, images, seeded())
    assert log_likelihood.shape == (samples, 5)
    torch.testing.assert_close(losses["loss"], (kl - log_likelihood.mean(0)).mean())
    torch.testing.assert_close(losses["loss"], losses["kl"] - losses["log_likelihood"])


def test_the_loss_of_an_iwae_is_minus_the_log_of_the_mean_weight(images):
    vae = build(**IWAE)
    _, log_weights, _ = by_hand(vae, images, seeded())
    expected = -log_weights.double().exp().mean(0).log().mean()
    torch.testing.assert_close(vae.losses(images, seeded())["loss"].double(), expected)


def test_the_gradient_of_an_iwae_weights_samples_by_importance(images):
    # Burda et al. 2015 (1509.00519), equation 14.
    vae = build(**IWAE, latent_dim=3)
    parameters = list(vae.parameters())
    actual = torch.autograd.grad(vae.losses(images, seeded())["loss"], parameters)
    _, log_weights, _ = by_hand(vae, images, seeded())
    shares = torch.softmax(log_weights.detach(), 0)
    expected = torch.autograd.grad(-(shares * log_weights).sum(0).mean(), parameters)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_more_samples_tighten_the_bound(images):
    # Burda et al. 2015 (1509.00519), theorem 1, for the means over many samples.
    losses = {}
    for samples in (1, 2, 10):
        vae = build(samples=samples, objective="elbo" if samples == 1 else "iwae", latent_dim=4)
        with torch.no_grad():
            vae.encoder.layers[0].weight.mul_(4)  # a posterior far from the exact one
            draws = [vae.losses(images, seeded(seed))["loss"] for seed in range(300)]
        losses[samples] = torch.stack(draws).mean()
    assert losses[10] < losses[2] < losses[1]


def test_the_weight_of_the_kl_rises_and_does_not_select_the_epoch(images):
    vae = build(kl_warmup_steps=4)
    plain = build()
    optimizers = vae.optimizers(OptimizerConfig())
    weights = []
    for _ in range(6):
        weights.append(vae.kl_weight())
        losses = vae.losses(images, seeded())
        torch.testing.assert_close(
            losses["loss"], weights[-1] * losses["kl"] - losses["log_likelihood"]
        )
        plain.load_state_dict(vae.state_dict())
        vae.eval(), plain.eval()
        assert vae.losses(images, seeded()) == plain.losses(images, seeded())
        vae.train()
        vae.training_step(images, optimizers, seeded(), OptimizerConfig())
    assert weights == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_weight_of_the_kl_acts_on_an_iwae_too(images):
    vae = build(**IWAE, kl_warmup_steps=4)
    log_likelihood, log_weights, _ = by_hand(vae, images, seeded())
    weighted = log_likelihood + 0.25 * (log_weights - log_likelihood)
    expected = -(torch.logsumexp(weighted, 0) - math.log(3)).mean()
    torch.testing.assert_close(vae.losses(images, seeded())["loss"], expected)


def test_the_first_steps_use_one_sample_and_the_elbo(images):
    vae, plain = build(**IWAE, one_sample_steps=2), build()
    optimizers = vae.optimizers(OptimizerConfig())
    for _ in range(2):
        plain.load_state_dict(vae.state_dict())
        assert vae.losses(images, seeded()) == plain.losses(images, seeded())
        vae.training_step(images, optimizers, seeded(), OptimizerConfig())
    whole = build(**IWAE)
    whole.load_state_dict(vae.state_dict())
    assert vae.losses(images, seeded()) == whole.losses(images, seeded())
    # What selects the epoch is the same bound from the first epoch on.
    fresh, other = build(**IWAE, one_sample_steps=2).eval(), build(**IWAE).eval()
    assert fresh.losses(images, seeded()) == other.losses(images, seeded())


def test_free_bits_are_the_minimum_kl_of_each_latent():
    kl = torch.tensor([[0.0, 0.3, 1.0], [0.2, 0.5, 3.0]], requires_grad=True)
    value = with_free_bits(kl, 0.25)
    assert value.item() == pytest.approx(0.25 + 0.4 + 2.0)
    value.backward()
    assert kl.grad.tolist() == [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    assert with_free_bits(kl, 0.0).item() == pytest.approx(kl.sum(1).mean().item())


def test_free_bits_do_not_select_the_epoch(images):
    spared, plain = build(free_bits=2.0), build()
    assert spared.losses(images, seeded())["loss"] > plain.losses(images, seeded())["loss"] + 1
    spared.eval(), plain.eval()
    assert spared.losses(images, seeded()) == plain.losses(images, seeded())


def test_static_bits_are_the_same_in_every_epoch_and_dynamic_ones_are_not(images):
    static, dynamic = build(**BITS | {"binarisation": "static"}), build(**BITS)
    generator = seeded()
    assert torch.equal(static.observe(images, generator), static.observe(images, generator))
    assert not torch.equal(dynamic.observe(images, generator), dynamic.observe(images, generator))
    static.eval()
    assert set(static.observe(images, generator).unique().tolist()) == {0.0, 1.0}
    assert build(likelihood="bernoulli").observe(images, generator) is images


def test_static_bits_follow_the_seed_of_the_run(images):
    fields = {"latent_dim": 2, "network": "mlp", "likelihood": "bernoulli"}
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(VAE(SHAPE, VAEConfig(**fields, binarisation="static")))
    bits = [model.observe(images, seeded()) for model in models]
    assert torch.equal(bits[0], bits[1])
    assert not torch.equal(bits[0], bits[2])


def test_the_running_sigma_is_that_of_the_training_steps(images):
    vae = build(sigma_mode="optimal")
    optimizers = vae.optimizers(OptimizerConfig())
    steps = [vae.training_step(images, optimizers, seeded(), OptimizerConfig()) for _ in range(3)]
    mean = torch.stack([step["sigma"] for step in steps]).square().mean().sqrt()
    assert vae.likelihood() == {"family": "gaussian", "sigma": pytest.approx(mean.item())}


def test_training_starts_at_the_configured_sigma():
    assert build().likelihood() == {"family": "gaussian", "sigma": pytest.approx(0.25)}
    assert build(**BITS).likelihood() == {"family": "bernoulli"}


def test_a_linear_model_is_clipped_only_where_it_is_served():
    vae, latents = build(**LINEAR), 100 * torch.randn(5, 2, generator=seeded())
    unclipped = vae.decode_unclipped(latents)
    assert unclipped.min() < 0
    assert unclipped.max() > 1
    torch.testing.assert_close(vae.decode(latents), unclipped.clamp(0, 1))
    sums = vae.decode_unclipped(latents) + vae.decode_unclipped(-latents)
    torch.testing.assert_close(sums, 2 * vae.decode_unclipped(0 * latents).expand_as(sums))


def test_log_variance_is_clamped_so_that_extreme_weights_stay_finite(images):
    vae = build()
    for bias, limit in ((1e4, LOG_VARIANCE_LIMIT), (-1e4, -LOG_VARIANCE_LIMIT)):
        with torch.no_grad():
            vae.encoder.layers[-1].bias.fill_(bias)
        _, log_variance = vae.encode(images)
        assert (log_variance == limit).all()
        assert all(torch.isfinite(each) for each in vae.losses(images, seeded()).values())


def test_reconstruct_is_deterministic(images):
    vae = build(**BITS)
    assert torch.equal(vae.reconstruct(images), vae.reconstruct(images))


@pytest.mark.parametrize("fields", [BITS, LINEAR], ids=["bernoulli", "linear"])
def test_graphs_equal_the_model(fields):
    for graph in build(**fields).graphs()[:2]:  # reconstruct is one after the other
        model = convert(graph.evaluating(), SHAPE, 2)
        check_parity(model, graph, SHAPE, 2)


def test_the_title_says_what_is_special():
    assert build().title == "Variational autoencoder (Gaussian, learned σ)"
    assert build(**LINEAR).title == "Linear variational autoencoder (Gaussian, learned σ)"
    assert build(**BITS).title == "Variational autoencoder (Bernoulli, dynamic bits)"
    assert (
        build(**BITS, **IWAE).title == "Importance-weighted autoencoder (Bernoulli, dynamic bits)"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"initial_sigma": MINIMUM_SIGMA}, "initial_sigma"),
        ({"minimum_sigma": 0.4}, "initial_sigma must be above minimum_sigma"),
        ({"minimum_sigma": 0.0}, "minimum_sigma"),
        ({"binarisation": "static"}, "binarisation"),
        ({"likelihood": "bernoulli", "output": "linear"}, "output"),
        ({"samples": 0}, "samples"),
        ({"objective": "iwae"}, "set samples above 1"),
        ({"objective": "iwae", "samples": 2, "free_bits": 0.1}, "free_bits"),
        ({"kl_warmup_steps": -1}, "kl_warmup_steps"),
        ({"one_sample_steps": -1}, "one_sample_steps"),
        ({"free_bits": -0.1}, "free_bits"),
        ({"free_bits": math.nan}, "free_bits"),
        ({"hidden": (0,)}, "hidden"),
    ],
)
def test_invalid_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig(**fields)
