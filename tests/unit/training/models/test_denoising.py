import pytest
import torch

from latentserve_training.models.denoising import DenoisingAutoencoder, DenoisingConfig
from latentserve_training.optim.optimizer import OptimizerConfig

IMAGES = torch.full((400, 1, 8, 8), 0.5)


def build(**fields):
    torch.manual_seed(0)
    config = DenoisingConfig(latent_dim=5, channels=(4,), **fields)
    return DenoisingAutoencoder((1, 8, 8), config)


def test_noise_has_the_configured_sigma():
    noise = build(noise_sigma=0.3).corrupt(IMAGES, torch.Generator().manual_seed(0)) - IMAGES
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)


def sources_seen(model):
    """Record the inputs of the encoder in training."""
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.losses(IMAGES, torch.Generator().manual_seed(0))
    return seen[0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 400), (0.5, 200)])
def test_the_share_of_clipped_images_is_kept(share, expected):
    source = sources_seen(build(noise_sigma=0.5, clipped_share=share))
    clipped = ((source >= 0) & (source <= 1)).flatten(1).all(1).sum().item()
    assert clipped == pytest.approx(expected, abs=40 if share == 0.5 else 0)


def test_the_target_is_the_clean_image():
    model = build(noise_sigma=0.5)
    losses = model.losses(IMAGES, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answer = model.reconstruct(sources_seen(model))
    expected = (answer - 0.5).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(losses["loss"], expected)


def test_the_trained_model_is_the_score_of_a_gaussian():
    # Miyasawa 1961, Alain & Bengio 2014 (1211.4246): the best r has r(x̃) − x̃ = σ² ∇ log p(x̃),
    # where p is the density of the noisy images. Here x ~ N(½, s² I), so p = N(½, (s² + σ²) I).
    spread, sigma = 0.1, 0.15
    torch.manual_seed(0)
    model = DenoisingAutoencoder(
        (1, 2, 2),
        DenoisingConfig(
            network="mlp", hidden=(), latent_dim=4, noise_sigma=sigma, clipped_share=0.0
        ),
    )
    config = OptimizerConfig(learning_rate=2e-2)
    optimizers, generator = model.optimizers(config), torch.Generator().manual_seed(0)
    for step in range(600):
        optimizers["model"].param_groups[0]["lr"] = 2e-2 * (1 - step / 600)
        clean = 0.5 + spread * torch.randn(1000, 1, 2, 2, generator=generator)
        model.training_step(clean, optimizers, generator, config)
    noisy = 0.5 + (spread**2 + sigma**2) ** 0.5 * torch.randn(4000, 1, 2, 2, generator=generator)
    with torch.inference_mode():
        moved = (model.reconstruct(noisy) - noisy).flatten(1)
    score = -(noisy.flatten(1) - 0.5) / (spread**2 + sigma**2)
    slopes = torch.linalg.lstsq(score, moved).solution / sigma**2
    torch.testing.assert_close(slopes, torch.eye(4), atol=0.03, rtol=0)


def test_one_graph_reconstructs_and_denoises():
    by_file = {graph.file: graph.operations for graph in build().graphs()}
    assert by_file["reconstruct.onnx"] == ("reconstruct", "denoise")


def shares_of(images, *values):
    return tuple((images == value).double().mean().item() for value in values)


def test_masking_sets_a_share_of_the_pixels_to_zero():
    corrupted = build(corruption="masking", corrupted_share=0.3).corrupt(
        IMAGES, torch.Generator().manual_seed(0)
    )
    assert shares_of(corrupted, 0.0, 0.5) == pytest.approx((0.3, 0.7), abs=0.01)


def test_salt_and_pepper_sets_a_share_of_the_pixels_to_both_ends():
    corrupted = build(corruption="salt_and_pepper", corrupted_share=0.3).corrupt(
        IMAGES, torch.Generator().manual_seed(0)
    )
    assert shares_of(corrupted, 0.0, 1.0, 0.5) == pytest.approx((0.15, 0.15, 0.7), abs=0.01)


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper"])
def test_training_uses_the_configured_corruption(corruption):
    source = sources_seen(build(corruption=corruption, corrupted_share=0.3))
    changed = (source != IMAGES).double().mean().item()
    assert changed == pytest.approx(0.3, abs=0.01)


def test_every_training_image_has_a_separate_sigma():
    model = build(noise_sigma=0.5, level_range=(0.1, 0.9), clipped_share=0.0)
    sigmas = (sources_seen(model) - IMAGES).flatten(1).std(1)
    assert 0.05 < sigmas.min() < 0.15
    assert 0.8 < sigmas.max() < 1.1
    assert sigmas.mean().item() == pytest.approx(0.5, abs=0.03)
    measured = model.corrupt(IMAGES, torch.Generator().manual_seed(0)) - IMAGES
    assert measured.std().item() == pytest.approx(0.5, rel=0.02)


def test_every_training_image_has_a_separate_share():
    model = build(corruption="masking", level_range=(0.0, 0.8))
    shares = (sources_seen(model) == 0).double().flatten(1).mean(1)
    assert shares.min() < 0.05
    assert shares.max() > 0.7
    assert shares.mean().item() == pytest.approx(0.4, abs=0.03)


def test_the_noise_of_a_fixed_sigma_does_not_change_between_versions():
    # Published models must stay reproducible bit for bit: first the noise, then the clipping.
    generator = torch.Generator().manual_seed(0)
    noisy = IMAGES + 0.5 * torch.randn(IMAGES.shape, generator=generator)
    clipped = torch.rand(len(IMAGES), 1, 1, 1, generator=generator) < 0.5
    expected = torch.where(clipped, noisy.clamp(0, 1), noisy)
    assert torch.equal(sources_seen(build(noise_sigma=0.5)), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"noise_sigma": 0.0},
        {"clipped_share": 1.5},
        {"corrupted_share": 0.0},
        {"measured_levels": (0.2, 0.2)},
        {"measured_levels": (0.0,)},
        {"measured_levels": (1.5,), "corruption": "masking"},
        {"level_range": (0.5,)},
        {"level_range": (0.5, 0.5)},
        {"level_range": (-0.1, 0.5)},
        {"level_range": (0.5, 1.5), "corruption": "masking"},
    ],
)
def test_impossible_noise_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DenoisingConfig(**fields)
