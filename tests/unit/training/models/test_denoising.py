import pytest
import torch

from latentserve_training.models.denoising import DenoisingAutoencoder, DenoisingConfig

IMAGES = torch.full((400, 1, 8, 8), 0.5)


def build(**fields):
    torch.manual_seed(0)
    config = DenoisingConfig(latent_dim=5, channels=(4,), **fields)
    return DenoisingAutoencoder((1, 8, 8), config)


def test_noise_has_the_sigma_that_was_asked_for():
    noise = build(noise_sigma=0.3).corrupt(IMAGES, torch.Generator().manual_seed(0)) - IMAGES
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)


def sources_seen(model):
    """Record what the encoder is trained on."""
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


def test_one_graph_reconstructs_and_denoises():
    by_file = {graph.file: graph.operations for graph in build().graphs()}
    assert by_file["reconstruct.onnx"] == ("reconstruct", "denoise")


@pytest.mark.parametrize("fields", [{"noise_sigma": 0.0}, {"clipped_share": 1.5}])
def test_impossible_noise_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DenoisingConfig(**fields)
